# Completions of bash(1) for the programs of p9auth. Which options there are is said by the
# programs' manual pages.
_p9auth() {
	local program=${1##*/} cur=$2 prev=$3 options='' words='' kind='' i
	case $program in
	factotum)
		options='-f -t -V' words='status serve-caps'
		case $prev in -f) kind='file' ;; serve-caps) kind=directory ;; esac
		;;
	sshfront)
		options='-D -d -e -G -i -q -T -t -V -4 -6 -C -E -f -g -o -p -u --rpc --capuse'
		case $prev in -E | -f | --rpc | --capuse) kind='file' ;; -u) kind=user ;; -C | -g | -o | -p) kind=other ;; esac
		;;
	p9auth-switch)
		options='-n -a -V' words='status ssh console all local'
		case $prev in ssh | console | all) words='on off' ;; local) words='on off status' ;; -a) kind=other ;; esac
		;;
	p9doas)
		options='-L -n -s -C -u -V --version' kind='command'
		case $prev in -C) kind='file' ;; -u) kind=user ;; esac
		for ((i = 1; i < COMP_CWORD; i++)); do
			case ${COMP_WORDS[i]} in
			-C | -u) ((i++)) ;;
			-*) ;;
			*) kind='file' options='' ;; # of the command
			esac
		done
		;;
	p9passwd)
		options='-a -d -e -h -k -i -l -n -q -r -R -S -u -w -x -V --all --delete --expire --help --keep-tokens --inactive --lock --mindays --quiet --repository --root --status --unlock --warndays --maxdays --version' kind=user
		case $prev in -R | --root) kind=directory ;; -i | -n | -r | -w | -x | --inactive | --mindays | --repository | --warndays | --maxdays) kind=other ;; esac
		;;
	p9su)
		options='-m -p -w -g -G -l -c -f -s -P -h -V --preserve-environment --whitelist-environment --group --supp-group --login --command --session-command --fast --shell --pty --help --version' kind=user
		case $prev in
		-g | -G | --group | --supp-group) kind=group ;;
		-s | --shell) words=$(grep '^/' /etc/shells 2>/dev/null) kind=other ;;
		-c | -w | --command | --session-command | --whitelist-environment) kind=other ;;
		esac
		;;
	esac
	[[ $cur == -* ]] && words=$options kind=''
	COMPREPLY=()
	[[ -z $words ]] || mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	case $kind in
	'' | other) ;;
	*) mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -A "$kind" -- "$cur") ;;
	esac
	case $kind in file | directory | command) compopt -o filenames 2>/dev/null ;; esac
}
complete -F _p9auth factotum sshfront p9auth-switch p9doas p9passwd p9su
