#!/bin/sh
# Puts the files of peipkg-manager in their places and removes them: what `make install` and `make uninstall` run.
# The Makefile explains the variables and gives each its default. Builds nothing, starts nothing, makes no user.
#
# What it installs it writes down, with its checksum, in installed-files among the documents. Removing goes by that
# list, and leaves what has been changed since: an edited configuration or service file, another package's program. Programs of
# somebody else that are in the way before are not touched, or kept beside ours and put back.

set -eu
umask 022

verb=$1
documents=$PREFIX/share/doc/peipkg-manager
list=$documents/installed-files

fail() {
    echo "make $verb: $1" >&2
    exit 1
}

say() {
    echo "$1"
}

# The paths end up in shell scripts, units and sed expressions, where more than this would need quotes.
for setting in "PREFIX=$PREFIX" "SYSCONFDIR=$SYSCONFDIR"; do
    case ${setting#*=} in
        *[!A-Za-z0-9/._+-]*) fail "$setting: expected a path of letters, digits and . _ + - only" ;;
        */) fail "$setting: expected a path without a slash at its end" ;;
        /*) ;;
        *) fail "$setting: expected an absolute path" ;;
    esac
done

work=$(mktemp -d)
partial=
# Not every shell runs what is set for EXIT when a signal ends it.
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
# What an earlier run has installed, and what this one does.
old=$work/old
new=$work/new
: >"$new"
if [ -f "$DESTDIR$list" ]; then cat "$DESTDIR$list" >"$old"; else : >"$old"; fi

# The list's line for the file $1.
line_of() {
    sum=$(sha256sum <"$DESTDIR$1")
    echo "${sum%% *} $1"
}

# Whether the file $1 is as an earlier run has left it.
is_as_installed() {
    line_of "$1" | grep -qxFf - "$old"
}

# Makes the directory $1 and what is missing above it.
directory() {
    if [ ! -d "$DESTDIR$1/" ]; then
        directory "${1%/*}"
        mkdir "$DESTDIR$1"
        echo "directory $1" >>"$new"
    fi
}

# Writes the list: what this run has installed, even if it was not all, and what an earlier one has and this one has not.
finish() {
    trap '' HUP INT TERM
    [ -z "$partial" ] || rm -f "$partial"
    if [ "$verb" = install ] && [ -s "$new" ]; then
        directory "$documents"
        awk 'FNR == NR { known[$2] = 1; print; next } !($2 in known)' "$new" "$old" >"$work/all"
        install -m 644 "$work/all" "$DESTDIR$list"
    fi
    rm -rf "$work"
}

# Installs the file $2 as $3, with mode $1: whole and written down, or not at all, whatever interrupts it.
put() {
    # mv would put it into that.
    [ ! -d "$DESTDIR$3" ] || fail "$DESTDIR$3 is a directory, and a file is to be there: move it away"
    directory "${3%/*}"
    partial=$DESTDIR$3.partial
    install -m "$1" "$2" "$partial"
    sum=$(sha256sum <"$partial")
    echo "${sum%% *} $3" >>"$new"
    mv -f "$partial" "$DESTDIR$3"
}

# The file $1 with the paths that the operator has chosen in place of those that are written in it. Where the programs look for a
# configuration by themselves is built in: what says so stays.
with_paths() {
    sed -e "s|/usr/local/bin/peipkg|$PREFIX/bin/peipkg|g" -e "s|/usr/local/share/doc/peipkg-manager|$documents|g" \
        -e "$search_rule" -e "$built_in" -e "s|/etc/peipkg-manager|$SYSCONFDIR/peipkg-manager|g" "$1" >"$work/file"
}

built_in='
    /by default `\/etc\/peipkg-manager/b
    /look for `\/etc\/peipkg-manager/b
    /Pa \/etc\/peipkg-manager\/config.toml/b
'

put_with_paths() {
    with_paths "$2"
    put "$1" "$work/file" "$3"
}

# The programs must be found by a service too, whose PATH is the usual one.
case $PREFIX in
    /usr | /usr/local) search_rule= ;;
    *) search_rule="s|PATH=/usr/local/sbin:|PATH=$PREFIX/bin:/usr/local/sbin:|" ;;
esac

# Installs a service file where its init system finds it. One that is not as it was installed is somebody's work, or that of
# an install with another PREFIX, whose list is not here.
put_live() {
    with_paths "$2"
    if [ -e "$DESTDIR$3" ] && [ ! -d "$DESTDIR$3" ] && ! is_as_installed "$3" && ! cmp -s "$work/file" "$DESTDIR$3"; then
        say "$DESTDIR$3 is not what an install with PREFIX=$PREFIX has left there, and stays as it is; compare it with $DESTDIR$documents/$2"
    else
        put "$1" "$work/file" "$3"
    fi
}

# The files of contrib/$1, and in `mode` what they are installed with: scripts stay scripts.
each_file() {
    find "contrib/$1" -type f | LC_ALL=C sort >"$work/files"
    while read -r file; do
        mode=644
        [ ! -x "$file" ] || mode=755
        "$2"
    done <"$work/files"
}

put_example() {
    put_with_paths "$mode" "$file" "$documents/$file"
}

put_of_runit() {
    [ "${file##*/}" = README.md ] || put_live "$mode" "$file" "/etc/sv/peipkg-manager/${file#contrib/runit/}"
}

# The service files of the init system, in their live places. A unit below another PREFIX would not be found.
put_service() {
    case $INIT in
        none) ;;
        systemd)
            case $PREFIX in
                /usr | /usr/local) units=$PREFIX/lib ;;
                *) units=/etc ;;
            esac
            put_live 644 contrib/systemd/peipkg-manager.service "$units/systemd/system/peipkg-manager.service"
            put_live 644 contrib/systemd/peipkg-manager.sysusers "$units/sysusers.d/peipkg-manager.conf"
            ;;
        sysvinit)
            put_live 755 contrib/sysvinit/peipkg-manager /etc/init.d/peipkg-manager
            put_live 644 contrib/logrotate/peipkg-manager /etc/logrotate.d/peipkg-manager
            ;;
        openrc)
            put_live 755 contrib/openrc/peipkg-manager.initd /etc/init.d/peipkg-manager
            put_live 644 contrib/openrc/peipkg-manager.confd /etc/conf.d/peipkg-manager
            put_live 644 contrib/logrotate/peipkg-manager /etc/logrotate.d/peipkg-manager
            ;;
        runit) each_file runit put_of_runit ;;
    esac
}

# Whether the place $2 of the file $1 is free for it: nothing is there, or what was installed from here, or just the same.
is_free_for() {
    [ -e "$DESTDIR$2" ] || [ -L "$DESTDIR$2" ] || return 0
    [ -f "$DESTDIR$2" ] && [ ! -L "$DESTDIR$2" ] && { is_as_installed "$2" || cmp -s "$1" "$DESTDIR$2"; }
}

# Installs the page or completion $1 as $2, in a directory that all packages share. One of somebody else's manager stays.
put_shared() {
    if is_free_for "$1" "$2"; then
        put 644 "$1" "$2"
    else
        say "$DESTDIR$2 is not from here, and stays as it is"
    fi
}

# Finds the programs of somebody else that have the names of ours, and makes their place free if REPLACE says so. All of them
# are looked at before one is moved.
make_place() {
    taken=
    choices='TOOLS=no, '
    for program in $programs; do
        path=$PREFIX/bin/$program
        ! is_free_for "$BUILT/$program" "$path" || continue
        taken="$taken $path"
        [ "$program" != peipkg-manager ] || choices=
        [ "$REPLACE" = no ] || [ ! -e "$DESTDIR$path.orig" ] ||
            fail "$DESTDIR$path cannot be kept as $program.orig, which is there already: move one of them away"
    done
    [ -n "$taken" ] || return 0
    if [ "$REPLACE" = no ]; then
        places=
        for path in $taken; do places="$places, $DESTDIR$path"; done
        fail "not from here, and not replaced: ${places#, }; give ${choices}another PREFIX, or REPLACE=yes, which keeps it as .orig"
    fi
    for path in $taken; do
        echo "original $path.orig" >>"$new"
        mv "$DESTDIR$path" "$DESTDIR$path.orig"
        say "$DESTDIR$path was not from here, and is kept as ${path##*/}.orig"
    done
}

install_all() {
    case $TOOLS in
        yes) programs='peipkg-manager peipkg-build peipkg-repo' ;;
        no) programs=peipkg-manager ;;
        *) fail "TOOLS=$TOOLS: expected yes or no" ;;
    esac
    case $REPLACE in
        yes | no) ;;
        *) fail "REPLACE=$REPLACE: expected yes or no" ;;
    esac
    for program in $programs; do
        [ -f "$BUILT/$program" ] || fail "$BUILT/$program is missing: run make first, as the user who has cargo"
    done
    case $INIT in
        systemd | sysvinit | openrc | runit | none) ;;
        *) fail "INIT=$INIT: expected systemd, sysvinit, openrc, runit or none" ;;
    esac
    make_place
    [ -z "$DESTDIR" ] || mkdir -p "$DESTDIR"

    put_service
    for program in $programs; do
        put 755 "$BUILT/$program" "$PREFIX/bin/$program"
    done
    for section in 8 toml.5; do
        with_paths "docs/peipkg-manager.$section"
        put_shared "$work/file" "$PREFIX/share/man/man${section#toml.}/peipkg-manager.$section"
    done
    put_shared contrib/completions/peipkg-manager.bash "$PREFIX/share/bash-completion/completions/peipkg-manager"
    put_shared contrib/completions/_peipkg-manager "$PREFIX/share/zsh/site-functions/_peipkg-manager"
    put_shared contrib/completions/peipkg-manager.fish "$PREFIX/share/fish/vendor_completions.d/peipkg-manager.fish"

    # The tree of the documents is that of the source, so that their links lead somewhere.
    for file in CHANGELOG.md LICENSE-APACHE LICENSE-MIT docs/*.md; do
        put_with_paths 644 "$file" "$documents/$file"
    done
    put_with_paths 644 docs/config.sample.toml "$documents/docs/config.sample.toml"
    for example in systemd sysvinit openrc runit logrotate cron nginx rclone github-actions slurm recipes; do
        [ ! -d "contrib/$example" ] || each_file "$example" put_example
    done

    directory "$SYSCONFDIR/peipkg-manager/recipes"
    config=$SYSCONFDIR/peipkg-manager/config.toml
    if [ -e "$DESTDIR$config" ] || [ -L "$DESTDIR$config" ]; then
        say "$DESTDIR$config is there already and stays as it is"
    else
        put_with_paths 644 docs/config.sample.toml "$config"
    fi

    say "installed below $DESTDIR$PREFIX and $DESTDIR$SYSCONFDIR; next: $DESTDIR$documents/docs/installing.md, \"Set up\""
}

uninstall_all() {
    [ -f "$DESTDIR$list" ] || fail "$DESTDIR$list is missing: was it installed with another PREFIX or DESTDIR?"
    while read -r sum path; do
        case $sum in directory | original) continue ;; esac
        [ -f "$DESTDIR$path" ] || continue
        if is_as_installed "$path"; then
            rm -f "$DESTDIR$path"
        else
            say "$DESTDIR$path has been changed and stays"
        fi
    done <"$old"
    # What was kept has its place again, unless somebody has put something there.
    sed -n 's/^original //p' "$old" >"$work/originals"
    while read -r path; do
        place=${path%.orig}
        if [ ! -e "$DESTDIR$path" ] && [ ! -L "$DESTDIR$path" ]; then continue; fi
        if [ -e "$DESTDIR$place" ] || [ -L "$DESTDIR$place" ]; then
            say "$DESTDIR$path stays as it is, because $DESTDIR$place is there"
        else
            mv "$DESTDIR$path" "$DESTDIR$place"
            say "$DESTDIR$place is again what it was before"
        fi
    done <"$work/originals"
    rm -f "$DESTDIR$list"
    # What is not empty stays. In reverse order a directory comes after those in it.
    sed -n 's/^directory //p' "$old" | LC_ALL=C sort -r >"$work/directories"
    while read -r path; do
        rmdir "$DESTDIR$path" 2>/dev/null || :
    done <"$work/directories"
}

case $verb in
    install) install_all ;;
    uninstall) uninstall_all ;;
    *) fail "expected install or uninstall" ;;
esac
