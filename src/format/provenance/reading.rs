//! Reads a statement, field by field: derived readers of its objects are 30 kB more of each program.

use serde_json::{Map, Value};

use super::{
    Annotations, BUILD_TYPE, BuildDefinition, Builder, Dependency, Digests, ExternalParameters,
    InternalParameters, Metadata, PREDICATE_TYPE, Predicate, ProvenanceError, RunDetails, STATEMENT_TYPE,
    Sha256, Statement, Subject, Versions,
};

/// A value, or what is wrong with the field that should have it.
type Read<T> = Result<T, String>;

/// An object of a statement. It has no fields if it is missing or `null`.
struct Object<'v>(Option<&'v Map<String, Value>>);

/// Parses a statement.
pub(super) fn statement(payload: &[u8]) -> Result<Statement, ProvenanceError> {
    let value: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let root = Object::of("the document", Some(&value))?;
    let check = |field, found: String, expected| {
        if found == expected { Ok(found) } else { Err(ProvenanceError::Other { field, found, expected }) }
    };
    // Before the rest: another predicate has other fields.
    let schema = check("_type", root.required_text("_type")?, STATEMENT_TYPE)?;
    let predicate_type = check("predicateType", root.required_text("predicateType")?, PREDICATE_TYPE)?;
    let predicate = root.object("predicate")?;
    let definition = predicate.object("buildDefinition")?;
    let build_type = check("buildType", definition.text("buildType")?, BUILD_TYPE)?;
    let subject = root.required("subject").and_then(|list| each("subject", Some(list), subject))?;
    let build_definition = BuildDefinition {
        build_type,
        external_parameters: external_parameters(&definition)?,
        internal_parameters: internal_parameters(&definition)?,
        resolved_dependencies: definition.list("resolvedDependencies", dependency)?,
    };
    let run_details = run_details(&predicate)?;
    Ok(Statement { schema, subject, predicate_type, predicate: Predicate { build_definition, run_details } })
}

fn subject(of: &Object<'_>) -> Read<Subject> {
    let digest = Sha256 { sha256: of.object("digest")?.required_text("sha256")? };
    Ok(Subject { name: of.text("name")?, digest })
}

fn external_parameters(definition: &Object<'_>) -> Read<ExternalParameters> {
    let of = Object::of("externalParameters", Some(definition.required("externalParameters")?))?;
    let read = ExternalParameters {
        source: of.required_text("source")?,
        tag: of.required_text("tag")?,
        recipe: of.required_text("recipe")?,
        version: of.required_text("version")?,
        submodules: of.flag("submodules")?,
        export_version: of.flag("exportVersion")?,
    };
    let known = ["source", "tag", "recipe", "version", "submodules", "exportVersion"];
    match of.0.into_iter().flat_map(Map::keys).find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("unknown field `{}`", name.escape_debug())),
        None => Ok(read),
    }
}

fn internal_parameters(definition: &Object<'_>) -> Read<InternalParameters> {
    let of = definition.object("internalParameters")?;
    Ok(InternalParameters {
        injected_keys: of.texts("injectedKeys")?,
        signing_keys: of.texts("signingKeys")?,
    })
}

fn dependency(of: &Object<'_>) -> Read<Dependency> {
    let digest = of.object("digest")?;
    let digest = Digests {
        git_commit: digest.text("gitCommit")?,
        git_tag: digest.text("gitTag")?,
        dir_hash: digest.text("dirHash")?,
    };
    let annotations = Annotations { executables: of.object("annotations")?.text("executables")? };
    Ok(Dependency { name: of.text("name")?, uri: of.text("uri")?, digest, annotations })
}

fn run_details(predicate: &Object<'_>) -> Read<RunDetails> {
    let of = Object::of("runDetails", Some(predicate.required("runDetails")?))?;
    let builder = of.object("builder")?;
    let versions = builder.object("version")?;
    let version = Versions {
        manager: versions.text("peipkg-manager")?,
        build: versions.text("peipkg-build")?,
        git: versions.text("git")?,
    };
    let metadata = of.object("metadata")?;
    let metadata =
        Metadata { started_on: metadata.text("startedOn")?, finished_on: metadata.text("finishedOn")? };
    Ok(RunDetails { builder: Builder { id: builder.required_text("id")?, version }, metadata })
}

impl<'v> Object<'v> {
    fn of(name: &str, value: Option<&'v Value>) -> Read<Self> {
        match value {
            None | Some(Value::Null) => Ok(Self(None)),
            Some(Value::Object(fields)) => Ok(Self(Some(fields))),
            Some(_) => Err(expected(name, "an object")),
        }
    }

    /// Returns a field. `null` is the same as none, as SLSA demands.
    fn field(&self, name: &str) -> Option<&'v Value> {
        self.0?.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Read<&'v Value> {
        self.field(name).ok_or_else(|| format!("missing field `{name}`"))
    }

    fn object(&self, name: &str) -> Read<Object<'v>> {
        Object::of(name, self.field(name))
    }

    fn required_text(&self, name: &str) -> Read<String> {
        text(name, self.required(name)?)
    }

    /// Returns the string in a field; an empty one if there is no such field.
    fn text(&self, name: &str) -> Read<String> {
        self.field(name).map_or(Ok(String::new()), |value| text(name, value))
    }

    fn flag(&self, name: &str) -> Read<bool> {
        let Some(value) = self.field(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| expected(name, "true or false"))
    }

    fn texts(&self, name: &str) -> Read<Vec<String>> {
        array(name, self.field(name))?.iter().map(|value| text(name, value)).collect()
    }

    fn list<T>(&self, name: &str, read: fn(&Object<'_>) -> Read<T>) -> Read<Vec<T>> {
        each(name, self.field(name), read)
    }
}

/// Reads each object of an array.
fn each<T>(name: &str, value: Option<&Value>, read: fn(&Object<'_>) -> Read<T>) -> Read<Vec<T>> {
    let element = |element| Object::of(name, Some(element)).and_then(|object| read(&object));
    array(name, value)?.iter().map(element).collect()
}

fn array<'v>(name: &str, value: Option<&'v Value>) -> Read<&'v [Value]> {
    let Some(value) = value else { return Ok(&[]) };
    value.as_array().map(Vec::as_slice).ok_or_else(|| expected(name, "an array"))
}

fn text(name: &str, value: &Value) -> Read<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| expected(name, "a string"))
}

fn expected(name: &str, what: &str) -> String {
    format!("field `{name}` has another type, expected {what}")
}
