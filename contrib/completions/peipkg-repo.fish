# Completes the command line of peipkg-repo in fish.

complete -c peipkg-repo -f
complete -c peipkg-repo -n __fish_use_subcommand -a init -d 'creates an empty repository in a directory that is empty or missing'
complete -c peipkg-repo -n __fish_use_subcommand -a publish -d 'adds packages, all or none, and signs the new indexes; a key of the repository must have signed each package'
complete -c peipkg-repo -n __fish_use_subcommand -a verify -d 'reports every issue of a repository; changes nothing'
complete -c peipkg-repo -n __fish_use_subcommand -a keys -d 'lists the keys of a repository; with --sign-key, changes them and signs repo.json'
complete -c peipkg-repo -n __fish_use_subcommand -a compare -d 'says whether two packages are equal, and which members differ first'
complete -c peipkg-repo -n __fish_use_subcommand -a help -d 'print this text'
complete -c peipkg-repo -n '__fish_seen_subcommand_from help' -a 'init publish verify keys compare'
complete -c peipkg-repo -s h -l help -d 'print this text'
complete -c peipkg-repo -n __fish_use_subcommand -s V -l version -d 'print the version'

complete -c peipkg-repo -n '__fish_seen_subcommand_from init' -l name -x -d 'short name, recorded in repo.json'
complete -c peipkg-repo -n '__fish_seen_subcommand_from init' -l description -x -d 'one line for people'
complete -c peipkg-repo -n '__fish_seen_subcommand_from init' -l sign-key -r -F -d 'Ed25519 private key: PEM PKCS#8, or the raw seed of 32 bytes'
complete -c peipkg-repo -n '__fish_seen_subcommand_from init' -l timestamp -x -d 'RFC 3339 in UTC, such as 2026-05-01T12:00:00Z; recorded as generated_at'
complete -c peipkg-repo -n '__fish_seen_subcommand_from init' -l out -x -a '(__fish_complete_directories)' -d 'the repository'
complete -c peipkg-repo -n '__fish_seen_subcommand_from init' -l no-site -d 'leaves out the browse site: index.html, feed.xml and assets/'

complete -c peipkg-repo -n '__fish_seen_subcommand_from publish' -l in -x -a '(__fish_complete_directories)' -d 'the repository before the publish'
complete -c peipkg-repo -n '__fish_seen_subcommand_from publish' -l new -x -a '(__fish_complete_directories)' -d 'the packages to add; required unless --rebuild is given. If there are none, the sidecars of all packages (manifest.json, files.json) are healed'
complete -c peipkg-repo -n '__fish_seen_subcommand_from publish' -l rebuild -d 'makes the indexes anew from all packages; signs repo.json again if its signature is not valid'
complete -c peipkg-repo -n '__fish_seen_subcommand_from publish' -l all-packages-dir -x -a '(__fish_complete_directories)' -d 'the directory of all packages, at any depth; required with --rebuild'
complete -c peipkg-repo -n '__fish_seen_subcommand_from publish' -l sign-key -r -F -d 'Ed25519 private key: PEM PKCS#8, or the raw seed of 32 bytes'
complete -c peipkg-repo -n '__fish_seen_subcommand_from publish' -l timestamp -x -d 'RFC 3339 in UTC, such as 2026-05-01T12:00:00Z; recorded as generated_at'
complete -c peipkg-repo -n '__fish_seen_subcommand_from publish' -l out -x -a '(__fish_complete_directories)' -d 'the repository after the publish; may be the same as --in'
complete -c peipkg-repo -n '__fish_seen_subcommand_from publish' -l package-url-template -x -d 'URLs of the new packages, with {filename}, or {name}, {version} and {arch}; a path is also where publish stores the package, https:// is stored elsewhere; the default is /p/{name}/{version}/{filename}'
complete -c peipkg-repo -n '__fish_seen_subcommand_from publish' -l no-site -d 'leaves out the browse site: index.html, feed.xml and assets/'

complete -c peipkg-repo -n '__fish_seen_subcommand_from verify' -l repo -x -a '(__fish_complete_directories)' -d 'the repository'
complete -c peipkg-repo -n '__fish_seen_subcommand_from verify' -l mode -x -a 'metadata hashes both' -d 'metadata: descriptor, indexes, signatures; hashes: every package file; both (default): metadata, then hashes if there was no issue'
complete -c peipkg-repo -n '__fish_seen_subcommand_from verify' -l all-packages-dir -x -a '(__fish_complete_directories)' -d 'the directory of the packages; the default is the repository'

complete -c peipkg-repo -n '__fish_seen_subcommand_from keys' -l repo -x -a '(__fish_complete_directories)' -d 'the repository'
complete -c peipkg-repo -n '__fish_seen_subcommand_from keys' -l sign-key -r -F -d 'private key that signs repo.json; clients must know it already, or they refuse the change'
complete -c peipkg-repo -n '__fish_seen_subcommand_from keys' -l add -r -F -d 'makes this key active: a private key, or a public key in PEM'
complete -c peipkg-repo -n '__fish_seen_subcommand_from keys' -l retire -x -d 'makes this key transitioning: its signatures count until the time of --until'
complete -c peipkg-repo -n '__fish_seen_subcommand_from keys' -l until -x -d 'RFC 3339 in UTC, such as 2026-05-01T12:00:00Z; for --retire'
complete -c peipkg-repo -n '__fish_seen_subcommand_from keys' -l revoke -x -d 'revokes this key for good: its signatures count no more'
complete -c peipkg-repo -n '__fish_seen_subcommand_from keys' -l no-site -d 'leaves out the browse site: index.html, feed.xml and assets/'

complete -c peipkg-repo -n '__fish_seen_subcommand_from compare' -l first -r -F -d 'a package'
complete -c peipkg-repo -n '__fish_seen_subcommand_from compare' -l second -r -F -d 'another package'
