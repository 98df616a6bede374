//! The facts that the tables and golden files of the site share: a package with everything, one
//! with markup in every field, one of another tool with nothing beside its identity.

use super::Facts;
use super::newest::newest;

const HOSTILE: &str = r#"{"name":"<script>alert(1)</script>","version":"\"><script>alert(2)</script>",
"architecture":"'x'","description":"]]><script>alert(3)</script><!-- \u0000\u001b[31m\u202e {{keys}} &amp;",
"license":"<img src=x onerror=alert(4)>","homepage":"javascript:alert(5)","size_compressed":1,
"size_installed":18446744073709551615,"hash":{"algorithm":"sha256","value":"<b>"},
"url":"javascript:alert(6)","build":{"timestamp":"2026-04-30T23:59:59Z","farm_id":"<farm>"}}"#;

const FULL: &str = r#"{"name":"libstdc++","version":"1:14.2.0-1","architecture":"x86_64",
"description":"The GNU C++ library — for “everybody”","license":"GPL-3.0","homepage":"https://gcc.gnu.org/?a=1&b=2",
"size_compressed":1234567,"size_installed":7654321,"hash":{"algorithm":"sha256","value":"00"},
"url":"/p/libstdc++/1:14.2.0-1/libstdc++_1:14.2.0-1_x86_64.peipkg",
"build":{"timestamp":"2026-05-01T12:00:00Z","farm_id":"farm-1"}}"#;

const BARE: &str = r#"{"name":"bare","version":"1-1","architecture":"noarch"}"#;

pub(super) fn facts() -> Facts<'static> {
    let active = [BARE, HOSTILE, FULL];
    Facts {
        name: "<b>my</b> repo",
        description: "Packages & \"more\" </title><script>alert(0)</script> {{name}}",
        keys: vec![
            "5dfc2443ee874ed6aedcdeaa699c62d27b3f2183053d68b4c156e2bef28dbc2b",
            "cda3e7c3a3d30e2d0a76a0d4e5ab3a0d6ca17d6f9d3d5ddc1d3c0ad1bd1f9a41",
        ],
        index_version: 12,
        generated_at: "2026-05-01T12:34:56Z",
        packages: active.len(),
        newest: newest(&active, 50),
    }
}
