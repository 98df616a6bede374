#!/bin/sh
# Installs and removes the files of peipkg-manager, for `make install` and `make uninstall`. The
# Makefile explains the variables and sets their defaults. Builds nothing, starts nothing, creates
# no user.
#
# An install lists its files with their checksums in installed-files, beside the documents. An
# uninstall removes the listed files, except those that somebody changed: an edited configuration or
# service file, or another package's program. A foreign program, one that this script did not
# install, stays in its place or is kept beside ours and restored.

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
    [ "$step" = check ] || echo "$1"
}

# "check" while an install goes through all its files and changes nothing, "copy" afterwards: so it
# fails before the first file is there, or not at all.
step=copy

# The paths go into shell scripts, units and sed expressions, where other characters need quotes.
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
# Some shells do not run the EXIT trap when a signal ends them.
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
# Lists of the files of the earlier install and of this one.
old=$work/old
new=$work/new
: >"$new"
if [ -f "$DESTDIR$list" ]; then cat "$DESTDIR$list" >"$old"; else : >"$old"; fi

# Prints the list's line for the file $1.
line_of() {
    sum=$(sha256sum <"$DESTDIR$1")
    echo "${sum%% *} $1"
}

# Succeeds if the file $1 is unchanged since an earlier install.
is_as_installed() {
    line_of "$1" | grep -qxFf - "$old"
}

# Fails if nothing can be created at $1. Looks at what is there of the directories above it.
can_create() {
    above=$DESTDIR$1
    while [ ! -e "$above" ] && [ ! -L "$above" ]; do
        case $above in
            /*/*) above=${above%/*} ;;
            /*) above=/ ;;
            */*) above=${above%/*} ;;
            *) above=. ;;
        esac
    done
    [ -d "$above" ] || fail "$above is no directory, expected one for $DESTDIR$1: move it away"
    { [ -w "$above" ] && [ -x "$above" ]; } ||
        fail "cannot write to $above, for $DESTDIR$1: become root, or give PREFIX and SYSCONFDIR in a directory of yours"
}

# Creates the directory $1 and its missing parents.
directory() {
    if [ ! -d "$DESTDIR$1/" ]; then
        if [ "$step" = check ]; then
            can_create "$1/."
            return
        fi
        directory "${1%/*}"
        mkdir "$DESTDIR$1"
        echo "directory $1" >>"$new"
    fi
}

# Writes the list, even after an incomplete install: the files of this install, then those that only
# an earlier one installed.
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

# Installs the file $2 as $3 with mode $1. An interrupt leaves the file complete and listed, or
# absent.
put() {
    # mv would move the file into the directory.
    [ ! -d "$DESTDIR$3" ] || fail "$DESTDIR$3 is a directory, expected a file: move it away"
    directory "${3%/*}"
    if [ "$step" = check ]; then
        can_create "${3%/*}/."
        return
    fi
    partial=$DESTDIR$3.partial
    install -m "$1" "$2" "$partial"
    sum=$(sha256sum <"$partial")
    echo "${sum%% *} $3" >>"$new"
    mv -f "$partial" "$DESTDIR$3"
}

# Writes the file $1 to $work/file with the operator's paths. Keeps the lines about the default path
# of the configuration, which is built into the programs.
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

# Services have the usual PATH, so add PREFIX/bin to it.
case $PREFIX in
    /usr | /usr/local) search_rule= ;;
    *) search_rule="s|PATH=/usr/local/sbin:|PATH=$PREFIX/bin:/usr/local/sbin:|" ;;
esac

# Installs a service file where its init system finds it. Keeps a changed file: somebody edited it,
# or an install with another PREFIX, and so with another list, wrote it.
put_live() {
    with_paths "$2"
    if [ -e "$DESTDIR$3" ] && [ ! -d "$DESTDIR$3" ] && ! is_as_installed "$3" && ! cmp -s "$work/file" "$DESTDIR$3"; then
        say "kept $DESTDIR$3, which make install with PREFIX=$PREFIX did not write; compare it with $DESTDIR$documents/$2"
    else
        put "$1" "$work/file" "$3"
    fi
}

# Calls $2 for each file of contrib/$1, with its path in `file` and in `mode` the mode to install,
# which keeps scripts executable.
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

# Installs the service files of the init system. systemd searches no other PREFIX for units.
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

# Succeeds if $2 may be replaced by the file $1: it is missing, unchanged since an install, or
# equal.
is_free_for() {
    [ -e "$DESTDIR$2" ] || [ -L "$DESTDIR$2" ] || return 0
    [ -f "$DESTDIR$2" ] && [ ! -L "$DESTDIR$2" ] && { is_as_installed "$2" || cmp -s "$1" "$DESTDIR$2"; }
}

# Installs the page or completion $1 as $2, in a directory that packages share. Keeps a foreign
# file.
put_shared() {
    if is_free_for "$1" "$2"; then
        put 644 "$1" "$2"
    else
        say "kept $DESTDIR$2, which make install did not write"
    fi
}

# Finds foreign programs with the names of ours and, with REPLACE=yes, renames them. Checks all of
# them before it renames one.
make_place() {
    taken=
    choices='TOOLS=no, '
    for program in $programs; do
        path=$PREFIX/bin/$program
        ! is_free_for "$BUILT/$program" "$path" || continue
        taken="$taken $path"
        [ "$program" != peipkg-manager ] || choices=
        [ "$REPLACE" = no ] || [ ! -e "$DESTDIR$path.orig" ] ||
            fail "cannot rename $DESTDIR$path to $program.orig, which exists: move one of them away"
    done
    [ -n "$taken" ] || return 0
    if [ "$REPLACE" = no ]; then
        places=
        for path in $taken; do places="$places, $DESTDIR$path"; done
        fail "programs exist that make install did not write: ${places#, }; give ${choices}another PREFIX, or REPLACE=yes, which renames them to .orig"
    fi
    [ "$step" = copy ] || return 0
    for path in $taken; do
        echo "original $path.orig" >>"$new"
        mv "$DESTDIR$path" "$DESTDIR$path.orig"
        say "renamed $DESTDIR$path, which make install did not write, to ${path##*/}.orig"
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
    step=check
    put_all
    step=copy
    [ -z "$DESTDIR" ] || mkdir -p "$DESTDIR"
    put_all
    say "installed below $DESTDIR$PREFIX and $DESTDIR$SYSCONFDIR; next: $DESTDIR$documents/docs/installing.md, \"Set up\""
}

put_all() {
    make_place
    directory "$documents"
    put_service
    for program in $programs; do
        put 755 "$BUILT/$program" "$PREFIX/bin/$program"
    done
    pages='peipkg-manager.8 peipkg-manager.toml.5'
    [ "$TOOLS" = no ] || pages="$pages peipkg-build.1 peipkg-repo.1"
    for page in $pages; do
        with_paths "docs/$page"
        put_shared "$work/file" "$PREFIX/share/man/man${page##*.}/$page"
    done
    for program in $programs; do
        put_shared "contrib/completions/$program.bash" "$PREFIX/share/bash-completion/completions/$program"
        put_shared "contrib/completions/_$program" "$PREFIX/share/zsh/site-functions/_$program"
        put_shared "contrib/completions/$program.fish" "$PREFIX/share/fish/vendor_completions.d/$program.fish"
    done

    # Keep the source's directories, so that links between the documents work.
    for file in CHANGELOG.md LICENSE-APACHE LICENSE-MIT THIRD-PARTY.txt docs/*.md; do
        put_with_paths 644 "$file" "$documents/$file"
    done
    put_with_paths 644 docs/config.sample.toml "$documents/docs/config.sample.toml"
    for example in systemd sysvinit openrc runit logrotate cron nginx notify prometheus rclone github-actions slurm recipes; do
        [ ! -d "contrib/$example" ] || each_file "$example" put_example
    done

    directory "$SYSCONFDIR/peipkg-manager/recipes"
    config=$SYSCONFDIR/peipkg-manager/config.toml
    if [ -e "$DESTDIR$config" ] || [ -L "$DESTDIR$config" ]; then
        say "kept $DESTDIR$config, which exists"
    else
        put_with_paths 644 docs/config.sample.toml "$config"
    fi
}

uninstall_all() {
    [ -f "$DESTDIR$list" ] || fail "$DESTDIR$list is missing: was it installed with another PREFIX or DESTDIR?"
    while read -r sum path; do
        case $sum in directory | original) continue ;; esac
        [ -f "$DESTDIR$path" ] || continue
        if is_as_installed "$path"; then
            rm -f "$DESTDIR$path"
        else
            say "kept $DESTDIR$path, which was changed after the install"
        fi
    done <"$old"
    # Restore the renamed programs, unless somebody installed another program there.
    sed -n 's/^original //p' "$old" >"$work/originals"
    while read -r path; do
        place=${path%.orig}
        if [ ! -e "$DESTDIR$path" ] && [ ! -L "$DESTDIR$path" ]; then continue; fi
        if [ -e "$DESTDIR$place" ] || [ -L "$DESTDIR$place" ]; then
            say "kept $DESTDIR$path, because $DESTDIR$place exists"
        else
            mv "$DESTDIR$path" "$DESTDIR$place"
            say "restored $DESTDIR$place from ${path##*/}"
        fi
    done <"$work/originals"
    rm -f "$DESTDIR$list"
    # Keep directories that are not empty. Reverse order removes a directory after its
    # subdirectories.
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
