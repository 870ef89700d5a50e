# curl, by libssh2.
set -u
curl="curl -s -S -k"
url="sftp://127.0.0.1:$port/~"
case $1 in
version) curl -V | sed -n 's/^curl \([^ ]*\).*/curl_\1/p' ;;
password) $curl -u "alice:$password" "$url/whose" ;;
sftp)
	$curl -u alice: --key $keys/right --pubkey $keys/right.pub -T data "$url/copy" &&
		$curl -u alice: --key $keys/right --pubkey $keys/right.pub "$url/copy" -o back
	;;
esac
