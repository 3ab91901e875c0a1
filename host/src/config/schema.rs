//! The JSON Schema of the pipeline file, for editors: made from the tables that the reader reads with.

use serde_json::{Value as Json, json};

use super::file::PipelineFile;
use super::read::Value;

/// What `wasmflow schema` prints. Examples name it in their first line: `#:schema …`.
pub fn pipeline_schema() -> Json {
    let mut schema = PipelineFile::schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("wasmflow pipeline file");
    schema["description"] = json!(concat!("A pipeline of wasmflow ", env!("CARGO_PKG_VERSION")));
    schema
}
