// SPDX-License-Identifier: MPL-2.0
// Drives tus-js-client as a page or an app would: node tus_upload.js '{"endpoint": …}'. Prints what came of it as JSON.
//   file, endpoint, token   what goes where
//   chunk                   bytes per PATCH (0: all in one)
//   stopAt                  gives up after so many bytes and goes on with a new client that only knows the stored URL
//   terminate               ends the upload instead of completing it
//   retries                 milliseconds between tries
'use strict'
const fs = require('fs')
const tus = require('tus-js-client')

const want = JSON.parse(process.argv[2])
const storage = new tus.FileUrlStorage(want.file + '.urls')
const report = { requests: {}, offsets: [], errors: [] }

function options(more) {
  return Object.assign(
    {
      endpoint: want.endpoint,
      headers: { Authorization: `Bearer ${want.token}` },
      chunkSize: want.chunk || Infinity,
      retryDelays: want.retries || null,
      metadata: { filename: 'picture ü.jpg', filetype: 'image/jpeg' },
      uploadSize: fs.statSync(want.file).size,
      urlStorage: storage,
      fingerprint: async () => `file-${want.file}`,
      storeFingerprintForResuming: true,
      removeFingerprintOnSuccess: true,
      onAfterResponse(req, res) {
        const key = `${req.getMethod()} ${res.getStatus()}`
        report.requests[key] = (report.requests[key] || 0) + 1
      }
    },
    more
  )
}

function finish(upload) {
  report.url = upload.url
  process.stdout.write(JSON.stringify(report) + '\n')
}

async function second() {
  const upload = new tus.Upload(fs.createReadStream(want.file), options({
    onChunkComplete(size, accepted) {
      report.offsets.push(accepted)
    },
    onError(error) {
      report.errors.push(String(error))
      finish(upload)
    },
    onSuccess() {
      finish(upload)
    }
  }))
  const before = await upload.findPreviousUploads()
  report.found = before.length
  if (before.length) {
    upload.resumeFromPreviousUpload(before[0])
  }
  upload.start()
}

function first() {
  let stopped = false
  const upload = new tus.Upload(fs.createReadStream(want.file), options({
    async onProgress(sent) {
      if (sent >= want.stopAt && !stopped) {
        stopped = true
        await upload.abort(Boolean(want.terminate))
        if (want.terminate) {
          finish(upload)
        } else {
          second()
        }
      }
    },
    onError(error) {
      report.errors.push(String(error))
      finish(upload)
    }
  }))
  upload.start()
}

if (want.stopAt) {
  first()
} else {
  second()
}
