# Completes the command line of peipkg-manager in bash.

_peipkg_manager() {
    local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]}
    # bash takes the equals sign of --flag=value for a word.
    case $word$flag in
        =*) word= ;;
        *=) flag=${COMP_WORDS[COMP_CWORD - 2]} ;;
    esac
    case $flag in
        --config)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            ;;
        --log-level)
            mapfile -t COMPREPLY < <(compgen -W 'debug info warn error' -- "$word")
            ;;
        --rebuild) ;;
        *)
            mapfile -t COMPREPLY < <(compgen -W '--config --log-level --once --check --plan --rebuild --help --version' -- "$word")
            ;;
    esac
}

complete -F _peipkg_manager peipkg-manager
