# Dropbear's dbclient. It has no sftp of its own: OpenSSH's uses it.
set -u
for k in wrong right; do
	[ -e $k.db ] || dropbearconvert openssh dropbear $keys/$k $k.db 2>/dev/null
done
db="dbclient -y -y -p $port"
case $1 in
version) dbclient -V 2>&1 | sed 's/ v/_/' ;;
password) DROPBEAR_PASSWORD=$password $db alice@127.0.0.1 id -un </dev/null ;;
keys) $db -i wrong.db -i right.db alice@127.0.0.1 id -un </dev/null ;;
both) DROPBEAR_PASSWORD=$password $db -i right.db alice@127.0.0.1 id -un </dev/null ;;
exec)
	echo in | $db -i right.db alice@127.0.0.1 "$command" 2>err
	s=$?
	grep . err | grep -v skipping.hostkey.check
	echo $s
	;;
sftp)
	printf '#!/bin/sh\nexec dbclient -y -y -p %s -i right.db -s alice@127.0.0.1 sftp 2>/dev/null\n' "$port" >dbsftp
	chmod 755 dbsftp
	printf 'put data copy\nget copy back\n' | sftp -q -b - -S "$PWD/dbsftp" alice@127.0.0.1 >/dev/null
	;;
forward)
	$db -N -i right.db -L "$free:127.0.0.1:$target" alice@127.0.0.1 </dev/null &
	trap 'kill $!' EXIT
	through
	;;
back)
	# To a file: dbclient looks whether its last channel is closed before it writes what
	# a full pipe did not take, and so waits for ever, if the server has closed by then.
	$db -i right.db -R "$free:127.0.0.1:$target" alice@127.0.0.1 "exec 3<>/dev/tcp/127.0.0.1/$free; cat <&3" </dev/null >out && cat out
	;;
esac
