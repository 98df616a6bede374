//! The provenance of a build: an in-toto Statement v1 with a SLSA v1.0 build provenance predicate, in
//! a DSSE envelope. `docs/provenance.md` says what each value means. Pure, and without cryptography.
//!
//! Fields are written in the order in which they are declared here.

use serde::Serialize;

use crate::dsse::{self, Envelope, EnvelopeError};

/// The type of the document in the envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// Names the way in which a farm builds, and the meaning of the parameters.
pub const BUILD_TYPE: &str = "urn:peipkg-manager:build:v1";
/// Begins the id of a farm's builder.
const BUILDER: &str = "urn:peipkg-manager:farm:";

/// A statement: which packages one build made, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statement {
    #[serde(rename = "_type")]
    schema: String,
    /// The packages of the build, sorted by name.
    pub subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    /// How they were made.
    pub predicate: Predicate,
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The name of its file.
    pub name: String,
    /// The digest of its file.
    pub digest: Sha256,
}

/// The SHA-256 of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sha256 {
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// How a build was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Predicate {
    /// What went in.
    pub build_definition: BuildDefinition,
    /// Who ran it, and when.
    pub run_details: RunDetails,
}

/// The inputs of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    /// Always [`BUILD_TYPE`].
    build_type: String,
    /// The choices of upstream and recipe.
    pub external_parameters: ExternalParameters,
    /// The choices of the farm.
    #[serde(skip_serializing_if = "is_default")]
    pub internal_parameters: InternalParameters,
    /// The source and the recipe, by their names.
    pub resolved_dependencies: Vec<Dependency>,
}

/// The choices of upstream and recipe. A verifier should refuse unknown ones, so reading does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalParameters {
    /// The repository as a URI without secrets, such as `git+https://example.org/x.git`.
    pub source: String,
    /// The tag that was built.
    pub tag: String,
    /// The id of the recipe.
    pub recipe: String,
    /// The version of the packages.
    pub version: String,
    /// Whether submodules were fetched.
    pub submodules: bool,
    /// Whether the build script got version, tag and commit.
    pub export_version: bool,
}

/// The choices of the farm's operator for the recipe.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InternalParameters {
    /// `NAME=VALUE` for each public key that the build script got as a variable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub injected_keys: Vec<String>,
    /// The names of the keys with which binaries could be signed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signing_keys: Vec<String>,
}

/// An input with its digests.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// [`SOURCE`] or [`RECIPE`].
    pub name: String,
    /// Where it was found, if that is a URI.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// What was found.
    pub digest: Digests,
    /// More about it.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: Annotations,
}

/// The name of the dependency that is the source.
pub const SOURCE: &str = "source";
/// The name of the dependency that is the recipe.
pub const RECIPE: &str = "recipe";

/// The digests of an input; empty if unknown.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Digests {
    /// The full id of a commit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_commit: String,
    /// The full id of the object of an annotated tag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_tag: String,
    /// The `dirHash` of a directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir_hash: String,
}

/// What no digest says of a recipe.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Annotations {
    /// The `dirHash` of its executable files alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub executables: String,
}

/// Who ran a build, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunDetails {
    /// The farm.
    pub builder: Builder,
    /// When.
    pub metadata: Metadata,
}

/// A farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Builder {
    /// See [`builder_id`].
    pub id: String,
    /// What each program says of its version.
    pub version: Versions,
}

/// The versions of the programs that took part; empty if a program did not say.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// Of the manager.
    #[serde(rename = "peipkg-manager", skip_serializing_if = "String::is_empty")]
    pub manager: String,
    /// Of `peipkg-build`.
    #[serde(rename = "peipkg-build", skip_serializing_if = "String::is_empty")]
    pub build: String,
    /// Of git.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git: String,
}

/// The time of a build: RFC 3339 in UTC.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// When the manager began to fetch the source.
    pub started_on: String,
    /// When the packages were checked.
    pub finished_on: String,
}

/// Why a file is no provenance, as the end of a sentence about it.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    /// The envelope is refused.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The document is not a statement of this form.
    #[error("holds no provenance of a build: {0}")]
    Form(String),
    /// The document says of itself that it is something else.
    #[error("holds no provenance of a build: its {field} is {found:?}, expected {expected:?}")]
    Other {
        /// Which field says so.
        field: &'static str,
        /// The field's value.
        found: String,
        /// The value of a provenance.
        expected: &'static str,
    },
}

impl From<String> for ProvenanceError {
    fn from(reason: String) -> Self {
        Self::Form(reason)
    }
}

impl Statement {
    /// Makes a statement about the packages `subject`.
    pub fn new(
        subject: Vec<Subject>,
        external_parameters: ExternalParameters,
        internal_parameters: InternalParameters,
        resolved_dependencies: Vec<Dependency>,
        run_details: RunDetails,
    ) -> Self {
        let build_type = BUILD_TYPE.to_owned();
        let build_definition =
            BuildDefinition { build_type, external_parameters, internal_parameters, resolved_dependencies };
        Self {
            schema: STATEMENT_TYPE.to_owned(),
            subject,
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Predicate { build_definition, run_details },
        }
    }

    /// Writes the envelope: compact JSON and one final newline. `sign` gets the bytes to sign, and
    /// returns the signature.
    pub fn write(&self, keyid: String, sign: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        // Strings, booleans and lists always serialize.
        let payload = serde_json::to_vec(self).unwrap_or_default();
        let signature = sign(&dsse::bytes_to_sign(PAYLOAD_TYPE, &payload));
        dsse::write(PAYLOAD_TYPE, &payload, keyid, &signature)
    }

    /// Reads the provenance in the file `bytes`, if `is_signed` accepts a signature: it gets the signed
    /// bytes and a signature, and tries every key that it trusts. Ignores unknown fields, but for
    /// parameters.
    ///
    /// # Errors
    /// When the file is no envelope, nobody trusted has signed it, or it is about something else.
    pub fn read(bytes: &[u8], is_signed: &dyn Fn(&[u8], &[u8]) -> bool) -> Result<Self, ProvenanceError> {
        Self::parse(Envelope::parse(bytes)?.verified(PAYLOAD_TYPE, is_signed)?)
    }

    /// Parses the document of an envelope.
    ///
    /// # Errors
    /// When it is no provenance of a build.
    pub fn parse(payload: &[u8]) -> Result<Self, ProvenanceError> {
        reading::statement(payload)
    }

    /// Whether it is about the package file `name` with these bytes. A digest alone would do, but the
    /// name of another version's file shows a statement that was exchanged.
    pub fn is_about(&self, name: &str, sha256: &str) -> bool {
        self.subject.iter().any(|subject| subject.name == name && subject.digest.sha256 == sha256)
    }

    /// Returns the dependency [`SOURCE`] or [`RECIPE`].
    pub fn dependency(&self, name: &str) -> Option<&Dependency> {
        self.predicate.build_definition.resolved_dependencies.iter().find(|found| found.name == name)
    }

    /// Returns the parameters.
    pub fn parameters(&self) -> &ExternalParameters {
        &self.predicate.build_definition.external_parameters
    }
}

/// Returns the names of the packages that the provenance in the file `bytes` is about, whoever wrote it;
/// none if it is no provenance. They tell whose file it is, and prove nothing.
pub fn claimed_subjects(bytes: &[u8]) -> Vec<String> {
    let statement = Statement::read(bytes, &|_, _| true);
    statement.map_or_else(|_| Vec::new(), |found| found.subject.into_iter().map(|one| one.name).collect())
}

/// Returns the URI that stands for a farm.
pub fn builder_id(farm_id: &str) -> String {
    format!("{BUILDER}{}", percent_encoded(farm_id, b""))
}

/// Percent-encodes all bytes that a URI may not have (RFC 3986 §2.3), but for those in `kept`.
pub fn percent_encoded(text: &str, kept: &[u8]) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte);
    text.bytes()
        .map(|byte| if is_kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

mod reading;
#[cfg(test)]
mod tests;
