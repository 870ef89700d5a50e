# PuTTY's plink and psftp. Of keys they take one, and all that an agent has.
set -u
[ -e right.ppk ] || puttygen $keys/right -O private -o right.ppk
plink="plink -batch -P $port"
known() { [ -e known.$port ] || echo y | plink -P "$port" -pw "$password" alice@127.0.0.1 true >known.$port 2>&1; } # it asks about the host key
[ $1 = version ] || known
case $1 in
version) plink -V | sed -n 's/^plink: Release /PuTTY_/p' ;;
password) $plink -pw "$password" alice@127.0.0.1 id -un ;;
keys)
	eval "$(ssh-agent)" >/dev/null
	trap 'kill $SSH_AGENT_PID' EXIT
	ssh-add -q $keys/wrong $keys/right
	$plink -agent alice@127.0.0.1 id -un
	;;
both) $plink -i right.ppk -pw "$password" alice@127.0.0.1 id -un ;;
exec)
	echo in | $plink -i right.ppk alice@127.0.0.1 "$command" 2>err
	s=$?
	cat err
	echo $s
	;;
sftp) printf 'put data copy\nget copy back\n' | psftp -batch -b /dev/stdin -P "$port" -i right.ppk alice@127.0.0.1 >/dev/null ;;
forward)
	$plink -N -i right.ppk -L "$free:127.0.0.1:$target" alice@127.0.0.1 </dev/null &
	trap 'kill $!' EXIT
	through
	;;
back) $plink -i right.ppk -R "$free:127.0.0.1:$target" alice@127.0.0.1 "exec 3<>/dev/tcp/127.0.0.1/$free; cat <&3" </dev/null ;;
esac
