# shellcheck shell=bash
# SPDX-License-Identifier: MPL-2.0
# --tls: a certificate authority of this data folder and a certificate of it for this machine's own names. Both are kept;
# the certificate is made anew in its last month, the authority never, so what clients trust stays.

TLS_AUTHORITY_DAYS=3650
TLS_CERTIFICATE_DAYS=397
TLS_RENEW_SECONDS=$((30 * 86400))

# openssl_quietly WORDS...: its chatter only when it fails.
openssl_quietly() {
    local said
    said=$(openssl "$@" 2>&1) || die "openssl $1 failed: $said"
}

make_authority() {
    openssl_quietly req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days "$TLS_AUTHORITY_DAYS" \
        -subj "/CN=chasqui on this machine" -addext basicConstraints=critical,CA:true,pathlen:0 \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$TLS_DIR/ca.key.new" -out "$TLS_DIR/ca.pem.new"
    mv -f -- "$TLS_DIR/ca.key.new" "$TLS_DIR/ca.key"
    mv -f -- "$TLS_DIR/ca.pem.new" "$TLS_DIR/ca.pem"
}

make_certificate() {
    openssl_quietly req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -subj /CN=localhost \
        -keyout "$TLS_DIR/key.pem.new" -out "$TLS_DIR/request.pem"
    printf '%s\n' subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1 basicConstraints=critical,CA:false \
        keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth >"$TLS_DIR/extensions"
    openssl_quietly x509 -req -sha256 -days "$TLS_CERTIFICATE_DAYS" -in "$TLS_DIR/request.pem" -CA "$TLS_DIR/ca.pem" \
        -CAkey "$TLS_DIR/ca.key" -set_serial "0x$(openssl rand -hex 16)" -extfile "$TLS_DIR/extensions" -out "$TLS_DIR/cert.pem.new"
    rm -f -- "$TLS_DIR/request.pem" "$TLS_DIR/extensions"
    # Running edges look at both files: a pair that does not fit for a moment is refused, and looked at again.
    mv -f -- "$TLS_DIR/key.pem.new" "$TLS_DIR/key.pem"
    mv -f -- "$TLS_DIR/cert.pem.new" "$TLS_DIR/cert.pem"
}

# keep_certificate: makes what is missing or about to expire.
keep_certificate() {
    local umask_before
    command -v openssl >/dev/null || die "the tool 'openssl' is missing: run deploy/deps.sh"
    umask_before=$(umask)
    umask 077
    mkdir -p -- "$TLS_DIR" || die "cannot create $TLS_DIR"
    chmod 700 -- "$TLS_DIR"
    if [[ ! -s $TLS_DIR/ca.pem || ! -s $TLS_DIR/ca.key ]]; then
        make_authority
        rm -f -- "$TLS_DIR/cert.pem"
    fi
    if [[ ! -s $TLS_DIR/key.pem ]] || ! openssl x509 -checkend "$TLS_RENEW_SECONDS" -noout -in "$TLS_DIR/cert.pem" >/dev/null 2>&1 ||
        ! openssl verify -CAfile "$TLS_DIR/ca.pem" "$TLS_DIR/cert.pem" >/dev/null 2>&1; then
        make_certificate
    fi
    umask "$umask_before"
}

# Does /readyz of a TLS edge say 200? With its certificate checked, as a client does it.
tls_edge_is_ready() {
    local line
    line=$(printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' |
        timeout 3 openssl s_client -quiet -verify_quiet -verify_return_error -CAfile "$TLS_DIR/ca.pem" -servername localhost \
            -connect "127.0.0.1:$1" 2>/dev/null | head -n 1) || true
    [[ $line == "HTTP/1."?" 200"* ]]
}

say_how_to_connect() {
    local n urls=
    [[ $TLS == yes ]] || return 0
    for ((n = 0; n < EDGES; n++)); do
        urls+=",wss://127.0.0.1:$((PORT + n))/ws"
    done
    printf 'clients: chasqui --server %s --ca-file %q\n' "${urls#,}" "$TLS_DIR/ca.pem"
}
