//! The program `peipkg-build`: picks the command that the arguments name, and returns the exit
//! status.

use std::process::ExitCode;

use peipkg_tools::build::{self, PROGRAM, binary_sign, pack, request::Request};
use peipkg_tools::cli::{self, Failure};

const HELP: &str = "\
Usage: peipkg-build build --recipe FILE --source DIR --version VERSION
           --source-ref REF --farm-id ID --timestamp TIME --out DIR
           [--sign-key FILE] [--build-env NAME=VALUE]...
           [--binary-sign-key NAME=FILE]...
       peipkg-build pack --manifest FILE --staged DIR --out FILE
           [--sign-key FILE]
       peipkg-build binary-sign --in FILE --key FILE

Makes packages. `build` runs a recipe's build script and writes one package for
each [[package]] of the recipe. `pack` writes one package from a finished
manifest and a staged tree. The same inputs give the same bytes. `binary-sign`
signs an ELF file in place.

  --recipe FILE         the recipe's peipkg.toml
  --source DIR          the source tree, SOURCE_DIR of the build script
  --version VERSION     version of the packages, [EPOCH:]UPSTREAM-REVISION
  --source-ref REF      recorded in the packages, as git+URL#refs/tags/TAG
  --farm-id ID          recorded in the packages
  --timestamp TIME      time of all entries, RFC 3339 in UTC, ending in Z
  --out DIR             the directory of the packages; created if missing
  --sign-key FILE       Ed25519 private key; without it, packages are unsigned
  --build-env NAME=VALUE
                        another variable for the build script
  --binary-sign-key NAME=FILE
                        the key that [[sign]] of the recipe calls NAME
  --manifest FILE       the manifest of the package, as JSON
  --staged DIR          the package's files
  --out FILE            the package to write
  --in FILE             the ELF file to sign
  --key FILE            Ed25519 private key for signing binaries
  -h, --help            print this text
  -V, --version         print the version

Exit status: 0 done, 1 the build failed, 2 the command line is wrong.
";

fn main() -> ExitCode {
    cli::run(PROGRAM, |mut parser| match parser.next().map_err(cli::usage)? {
        Some(lexopt::Arg::Short('h') | lexopt::Arg::Long("help")) => Ok(HELP.to_owned()),
        Some(lexopt::Arg::Short('V') | lexopt::Arg::Long("version")) => {
            Ok(format!("{PROGRAM} {}\n", env!("CARGO_PKG_VERSION")))
        }
        Some(lexopt::Arg::Value(command)) if command == "help" => Ok(HELP.to_owned()),
        Some(lexopt::Arg::Value(command)) if command == "build" => match Request::parse(&mut parser)? {
            Some(request) => build::build(&request),
            None => Ok(HELP.to_owned()),
        },
        Some(lexopt::Arg::Value(command)) if command == "pack" => match pack::Request::parse(&mut parser)? {
            Some(request) => pack::pack(&request),
            None => Ok(HELP.to_owned()),
        },
        Some(lexopt::Arg::Value(command)) if command == "binary-sign" => {
            match binary_sign::Request::parse(&mut parser)? {
                Some(request) => binary_sign::binary_sign(&request),
                None => Ok(HELP.to_owned()),
            }
        }
        Some(lexopt::Arg::Value(command)) => {
            let found = command.display();
            Err(Failure::Usage(format!("unknown command \"{found}\", expected build, pack or binary-sign")))
        }
        Some(other) => Err(cli::usage(other.unexpected())),
        None => Err(Failure::Usage("no command given, expected build, pack or binary-sign".to_owned())),
    })
}
