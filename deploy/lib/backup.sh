# shellcheck shell=bash
# SPDX-License-Identifier: MPL-2.0
# --backup and --restore: chasquictl and chasqui-store know how; here are the folders of this layout.

# backup_all FOLDER: of the system that runs on this data folder.
backup_all() {
    [[ -x $BIN/chasquictl ]] || die "$BIN/chasquictl is missing: run without --no-build once"
    if [[ ! -e $RUN/lock ]] || ! is_locked; then
        die "nothing runs on $DATA"
    fi
    exec "$BIN/chasquictl" --data "$DATA" backup "$1"
}

# The key that the backup was made with, at its place. Nothing is overwritten.
place_master_key() {
    local key=$DATA/keys/master.key
    if [[ -z $MASTER_KEY ]]; then
        [[ -f $key ]] || die "the master key is missing: put your copy of it at $key, or give it with --master-key FILE"
        return 0
    fi
    [[ -f $MASTER_KEY ]] || die "there is no file $MASTER_KEY"
    if [[ -f $key ]]; then
        cmp -s -- "$MASTER_KEY" "$key" || die "$key is another key than $MASTER_KEY: move it away first"
        return 0
    fi
    install -m 600 -- "$MASTER_KEY" "$key" || die "cannot write $key"
}

# check_restore FOLDER: what can be known before a build of minutes.
check_restore() {
    ! is_locked || die "a system runs on $DATA: stop it with --stop, or restore into another folder"
    [[ -d $1 ]] || die "there is no folder $1"
    place_master_key
}

# restore_all FOLDER: into this data folder, which has no database yet.
restore_all() {
    check_restore "$1"
    local log=$LOG/restore.log begin
    touch -- "$log"
    begin=$(($(stat -c %s -- "$log") + 1)) # of what this one says: the log is kept
    if ! "$BIN/chasqui-store" --restore "$1" --data "$DATA/store" --blobs "$DATA/blobs" --master-key "$DATA/keys/master.key" \
        >>"$log" 2>&1; then
        tail -c "+$begin" -- "$log" | tail -n 2 >&2
        die "not restored: see $log"
    fi
    if tail -c "+$begin" -- "$log" | grep -q 'id=STORE-RESTORE-NO-BLOBS'; then
        say "this backup was made WITHOUT BLOBS: pictures and files are not restored"
    fi
    say "restored into $DATA: start it as usual. Devices revoked after the backup have to be revoked again"
}
