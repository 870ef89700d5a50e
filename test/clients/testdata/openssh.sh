# OpenSSH's client. sshpass types for people who have a password.
set -u
own="-F none -p $port -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ControlPath=none -o IdentitiesOnly=yes"
key="$own -i $keys/right -o PreferredAuthentications=publickey"
case $1 in
version) ssh -V 2>&1 | sed 's/[ ,].*//' ;;
password) sshpass -p "$password" ssh -n $own -o PreferredAuthentications=password alice@127.0.0.1 id -un ;;
keys) ssh -n $own -i $keys/wrong -i $keys/right -o PreferredAuthentications=publickey alice@127.0.0.1 id -un ;;
both) sshpass -p "$password" ssh -n $own -i $keys/right -o PreferredAuthentications=publickey,keyboard-interactive alice@127.0.0.1 id -un ;;
exec)
	echo in | ssh $key alice@127.0.0.1 "$command" 2>err
	s=$?
	cat err
	echo $s
	;;
sftp) printf 'put data copy\nget copy back\n' | sftp -q -b - ${key/-p /-P } alice@127.0.0.1 >/dev/null ;;
forward)
	ssh -N $key -L "$free:127.0.0.1:$target" alice@127.0.0.1 &
	trap 'kill $!' EXIT
	through
	;;
back) ssh -n $key -R "$free:127.0.0.1:$target" alice@127.0.0.1 "exec 3<>/dev/tcp/127.0.0.1/$free; cat <&3" ;;
esac
