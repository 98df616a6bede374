# Completes the command line of peipkg-repo in bash.

_peipkg_repo() {
    local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    # bash takes the equals sign of --flag=value for a word.
    case $word$flag in
        =*) word= ;;
        *=) flag=${COMP_WORDS[COMP_CWORD - 2]} ;;
    esac
    COMPREPLY=()
    case $command$flag in
        *--sign-key | *--add | *--first | *--second)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        *--in | *--new | *--all-packages-dir | *--out | *--repo)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return
            ;;
        *--mode)
            mapfile -t COMPREPLY < <(compgen -W 'metadata hashes both' -- "$word")
            return
            ;;
        *--name | *--description | *--timestamp | *--package-url-template | *--retire | *--until | *--revoke)
            return
            ;;
    esac
    local words=
    case $COMP_CWORD-$command in
        1-*) words='init publish verify keys compare help --help --version' ;;
        *-init) words='--name --description --sign-key --timestamp --out --no-site --help' ;;
        *-publish) words='--in --new --rebuild --all-packages-dir --sign-key --timestamp --out --package-url-template --no-site --help' ;;
        *-verify) words='--repo --mode --all-packages-dir --help' ;;
        *-keys) words='--repo --sign-key --add --retire --until --revoke --no-site --help' ;;
        *-compare) words='--first --second --help' ;;
        2-help) words='init publish verify keys compare' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _peipkg_repo peipkg-repo
