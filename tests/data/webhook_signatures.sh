#!/bin/sh
# Makes webhook_signatures.json: signatures by OpenSSL, which knows nothing of this package.
sign() { # secret timestamp body
	if [ -n "$3" ]; then signed="$2.$3"; else signed="$2"; fi
	printf '%s' "$signed" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$(printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n')" | sed 's/^.*= /v1=/'
}
separator='['
each() {
	body=$(printf '%s' "$3" | sed 's/\\/\\\\/g; s/"/\\"/g')
	printf '%s\n  {"secret": "%s", "timestamp": %s, "body": "%s", "signature": "%s"}' \
		"$separator" "$1" "$2" "$body" "$(sign "$1" "$2" "$3")"
	separator=','
}
each whsec_01jq8secretxxxxxxxxxxxxxxxx 1743085501 '{"id": "evt_1", "type": "job.succeeded", "job_id": "job_1", "data": {"status": "succeeded"}}'
each whsec_01jq8secretxxxxxxxxxxxxxxxx 1743085501 ''
each whsec_größe_ジョブ_0123456789 1743085502 '{"name": "größe"}'
each 0123456789abcdef0123456789abcdef 1 'no JSON at all'
printf '\n]\n'
