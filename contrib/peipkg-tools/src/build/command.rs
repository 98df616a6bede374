//! The command line of `peipkg-build`: the table of its commands and flags.

use super::{PROGRAM, binary_sign, build, check, pack, request};
use crate::cli::table::{Command, Flag, Missing, Tool};

/// The program's commands and flags.
pub static TOOL: Tool = Tool {
    name: PROGRAM,
    about: "makes packages; the same inputs give the same bytes",
    commands: &[
        Command {
            name: "build",
            about: "runs a recipe's build script and writes its packages",
            flags: &[
                RECIPE,
                Flag::directory("--source", "the source tree, SOURCE_DIR of the build script").required(),
                Flag::text("--version", "VERSION", "version of the packages, such as 1.3.2-1 or 1:1.3.2-1")
                    .required(),
                Flag::text("--source-ref", "REF", "recorded in the packages, as git+URL#refs/tags/TAG")
                    .required(),
                Flag::text("--farm-id", "ID", "recorded in the packages").required(),
                Flag::text("--timestamp", "TIME", "time of all entries, RFC 3339 in UTC, ending in Z")
                    .required(),
                Flag::directory("--out", "the directory of the packages; created if missing").required(),
                SIGN_KEY,
                Flag::text("--build-env", "NAME=VALUE", "another variable for the build script").list(),
                Flag::text(
                    "--binary-sign-key",
                    "NAME=PATH",
                    "the key that [[sign]] of the recipe calls NAME",
                )
                .list(),
            ],
            missing: Missing::IsFailure,
            run: |options| build(&request::Request::parse(options)?),
        },
        Command {
            name: "check",
            about: "prints each problem of a recipe that shows without a build, as FILE:LINE: message",
            flags: &[RECIPE],
            missing: Missing::IsUsage,
            run: |options| check(&options.path("--recipe")?),
        },
        Command {
            name: "binary-sign",
            about: "signs an ELF file in place",
            flags: &[
                Flag::file("--in", "FILE", "the ELF file to sign").required(),
                Flag::file("--key", "FILE", "Ed25519 private key: PEM PKCS#8, or the raw seed of 32 bytes")
                    .required(),
            ],
            missing: Missing::IsUsage,
            run: |options| binary_sign::binary_sign(&binary_sign::Request::parse(options)?),
        },
        Command {
            name: "pack",
            about: "writes one package from a finished manifest and a staged tree",
            flags: &[
                Flag::file("--manifest", "FILE", "the manifest of the package, as JSON").required(),
                Flag::directory("--staged", "the package's files").required(),
                Flag::file("--out", "FILE", "the package to write").required(),
                SIGN_KEY,
            ],
            missing: Missing::IsFailure,
            run: |options| pack::pack(&pack::Request::parse(options)?),
        },
    ],
};

const RECIPE: Flag = Flag::file("--recipe", "FILE", "the recipe's peipkg.toml").required();

const SIGN_KEY: Flag = Flag::file(
    "--sign-key",
    "FILE",
    "Ed25519 private key: PEM PKCS#8, or the raw seed of 32 bytes; without it, packages are unsigned",
);
