# Completes the command line of peipkg-build in fish.

complete -c peipkg-build -f
complete -c peipkg-build -n __fish_use_subcommand -a build -d 'runs a recipe\'s build script and writes its packages'
complete -c peipkg-build -n __fish_use_subcommand -a check -d 'prints each problem of a recipe that shows without a build, as FILE:LINE: message'
complete -c peipkg-build -n __fish_use_subcommand -a binary-sign -d 'signs an ELF file in place'
complete -c peipkg-build -n __fish_use_subcommand -a pack -d 'writes one package from a finished manifest and a staged tree'
complete -c peipkg-build -n __fish_use_subcommand -a help -d 'print this text'
complete -c peipkg-build -n '__fish_seen_subcommand_from help' -a 'build check binary-sign pack'
complete -c peipkg-build -s h -l help -d 'print this text'
complete -c peipkg-build -n __fish_use_subcommand -s V -l version -d 'print the version'

complete -c peipkg-build -n '__fish_seen_subcommand_from build' -l recipe -r -F -d 'the recipe\'s peipkg.toml'
complete -c peipkg-build -n '__fish_seen_subcommand_from build' -l source -x -a '(__fish_complete_directories)' -d 'the source tree, SOURCE_DIR of the build script'
complete -c peipkg-build -n '__fish_seen_subcommand_from build' -l version -x -d 'version of the packages, such as 1.3.2-1 or 1:1.3.2-1'
complete -c peipkg-build -n '__fish_seen_subcommand_from build' -l source-ref -x -d 'recorded in the packages, as git+URL#refs/tags/TAG'
complete -c peipkg-build -n '__fish_seen_subcommand_from build' -l farm-id -x -d 'recorded in the packages'
complete -c peipkg-build -n '__fish_seen_subcommand_from build' -l timestamp -x -d 'time of all entries, RFC 3339 in UTC, ending in Z'
complete -c peipkg-build -n '__fish_seen_subcommand_from build' -l out -x -a '(__fish_complete_directories)' -d 'the directory of the packages; created if missing'
complete -c peipkg-build -n '__fish_seen_subcommand_from build' -l sign-key -r -F -d 'Ed25519 private key: PEM PKCS#8, or the raw seed of 32 bytes; without it, packages are unsigned'
complete -c peipkg-build -n '__fish_seen_subcommand_from build' -l build-env -x -d 'another variable for the build script'
complete -c peipkg-build -n '__fish_seen_subcommand_from build' -l binary-sign-key -x -d 'the key that [[sign]] of the recipe calls NAME'

complete -c peipkg-build -n '__fish_seen_subcommand_from check' -l recipe -r -F -d 'the recipe\'s peipkg.toml'

complete -c peipkg-build -n '__fish_seen_subcommand_from binary-sign' -l in -r -F -d 'the ELF file to sign'
complete -c peipkg-build -n '__fish_seen_subcommand_from binary-sign' -l key -r -F -d 'Ed25519 private key: PEM PKCS#8, or the raw seed of 32 bytes'

complete -c peipkg-build -n '__fish_seen_subcommand_from pack' -l manifest -r -F -d 'the manifest of the package, as JSON'
complete -c peipkg-build -n '__fish_seen_subcommand_from pack' -l staged -x -a '(__fish_complete_directories)' -d 'the package\'s files'
complete -c peipkg-build -n '__fish_seen_subcommand_from pack' -l out -r -F -d 'the package to write'
complete -c peipkg-build -n '__fish_seen_subcommand_from pack' -l sign-key -r -F -d 'Ed25519 private key: PEM PKCS#8, or the raw seed of 32 bytes; without it, packages are unsigned'
