//! The rule for detached signatures in a payload: `X.peios.sig` signs the file `X` beside it. Pure.
//!
//! Such a signature is for a file that cannot carry its own, so `X` is in the same package, regular
//! and no ELF file. Checks the form only: the kernel's key is not known here.

/// The end of a signature's name.
const SUFFIX: &str = ".peios.sig";
/// The length of a signature in bytes: the version, and 3,309 bytes of ML-DSA-65.
const LENGTH: u64 = 3_310;
/// The first byte of a signature: its version.
const VERSION: u8 = 1;
/// The first bytes of an ELF file.
const ELF: &[u8] = b"\x7fELF";

/// The most bytes that [`is_elf`] and [`check`] look at.
pub const START: usize = ELF.len();
/// The problem of a signature that is a directory or symbolic link.
pub const NO_FILE: &str = "has the name of a detached signature but is no regular file";

/// Returns the path of the file that the signature at `path` signs, or `None` if it is no signature.
pub fn subject(path: &str) -> Option<&str> {
    path.strip_suffix(SUFFIX)
}

/// Whether a file that starts with these bytes is an ELF file.
pub fn is_elf(start: &[u8]) -> bool {
    start.starts_with(ELF)
}

/// Checks a signature of `size` bytes that starts with `start`. `subject` says whether the signed
/// file is ELF, or is `None` if the package has no regular file of that path. An error is the end of a
/// sentence that starts with the signature's path.
pub fn check(size: u64, start: &[u8], subject: Option<bool>) -> Result<(), &'static str> {
    match subject {
        None => Err("signs a regular file of the same package, which has none of that name"),
        Some(true) => Err("signs an ELF file, whose signature belongs into the file itself"),
        Some(false) if size != LENGTH => Err("is a detached signature, which has exactly 3310 bytes"),
        Some(false) if start.first() != Some(&VERSION) => {
            Err("is a detached signature, whose first byte must be 0x01")
        }
        Some(false) => Ok(()),
    }
}
