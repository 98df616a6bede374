# Completes the command line of peipkg-manager in fish.

complete -c peipkg-manager -f
complete -c peipkg-manager -l config -r -F -d 'The configuration file'
complete -c peipkg-manager -l log-level -x -a 'debug info warn error' -d 'The least level to log: debug, info, warn or error'
complete -c peipkg-manager -l once -d 'Poll every recipe once, build, publish and upload what is new, and exit; no HTTP, no schedule'
complete -c peipkg-manager -l check -d 'Check configuration, recipes, tools and keys, print every problem, and exit'
complete -c peipkg-manager -l plan -d 'List every upstream, print what a sweep would do with each tag, and exit; change nothing'
complete -c peipkg-manager -l rebuild -x -d 'Build a published version again, say whether it is the published one, and exit; change nothing'
complete -c peipkg-manager -s h -l help -d 'Print this help and exit'
complete -c peipkg-manager -s V -l version -d 'Print the version and exit'
