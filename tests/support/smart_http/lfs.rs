//! The git-lfs content of a repository: git-lfs's batch API, and the content itself.

use std::io::{self, Read as _, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::message::{self, Incoming};

/// The end of the path at which git-lfs asks where objects are.
const BATCH: &str = "/info/lfs/objects/batch";

/// The part of a path between a repository's name and an object's id.
const OBJECT: &str = "/lfs-object/";

/// Answers a request for git-lfs from the repositories below `root`. Returns false if it is another
/// request.
pub(super) fn serve(incoming: &mut Incoming<'_, '_>, out: &mut impl Write, root: &Path) -> io::Result<bool> {
    let request = incoming.request.clone();
    let in_repository = |name: &str, oid: &str| {
        let objects = root.join(name.trim_start_matches('/')).join("lfs/objects");
        objects.join(&oid[..2]).join(&oid[2..4]).join(oid)
    };
    if let Some(name) = request.path.strip_suffix(BATCH) {
        let mut body = Vec::new();
        incoming.body().read_to_end(&mut body)?;
        let asked: Value = serde_json::from_slice(&body)?;
        let host = request.header("host").unwrap_or_default();
        let answer = |object: &Value| {
            let oid = object["oid"].as_str().unwrap_or_default();
            if !in_repository(name, oid).exists() {
                return json!({"oid": oid, "size": object["size"], "error": {"code": 404, "message": "no such object"}});
            }
            let mut download = json!({"href": format!("http://{host}{name}{OBJECT}{oid}")});
            if let Some(credentials) = request.header("authorization") {
                download["header"] = json!({"Authorization": credentials});
            }
            json!({"oid": oid, "size": object["size"], "actions": {"download": download}})
        };
        let objects: Vec<Value> = asked["objects"].as_array().into_iter().flatten().map(answer).collect();
        let body = json!({"transfer": "basic", "objects": objects}).to_string();
        let json = [("Content-Type", "application/vnd.git-lfs+json")];
        message::respond(out, 200, &json, body.as_bytes())?;
        return Ok(true);
    }
    let Some((name, oid)) = request.path.split_once(OBJECT) else { return Ok(false) };
    incoming.drain()?;
    let content = std::fs::read(in_repository(name, oid))?;
    message::respond(out, 200, &[("Content-Type", "application/octet-stream")], &content)?;
    Ok(true)
}
