# Completes the command line of peipkg-build in bash.

_peipkg_build() {
    local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    # bash takes the equals sign of --flag=value for a word.
    case $word$flag in
        =*) word= ;;
        *=) flag=${COMP_WORDS[COMP_CWORD - 2]} ;;
    esac
    COMPREPLY=()
    case $command$flag in
        *--recipe | *--sign-key | *--in | *--key | *--manifest | pack--out)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        *--source | *--staged | *--out)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return
            ;;
        *--version | *--source-ref | *--farm-id | *--timestamp | *--build-env | *--binary-sign-key)
            return
            ;;
    esac
    local words=
    case $COMP_CWORD-$command in
        1-*) words='build check binary-sign pack help --help --version' ;;
        *-build) words='--recipe --source --version --source-ref --farm-id --timestamp --out --sign-key --build-env --binary-sign-key --help' ;;
        *-check) words='--recipe --help' ;;
        *-binary-sign) words='--in --key --help' ;;
        *-pack) words='--manifest --staged --out --sign-key --help' ;;
        2-help) words='build check binary-sign pack' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _peipkg_build peipkg-build
