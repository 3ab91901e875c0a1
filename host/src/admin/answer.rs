//! Answers: JSON without secrets, and errors that name the step, the place and the remedy.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use crate::config::mask;

/// Why a request is not answered as it wishes.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(skip)]
    pub status: StatusCode,
    /// The step of a swap that has failed; else what was being done.
    pub step: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Problem {
    pub fn new(status: StatusCode, step: &str, message: impl Into<String>) -> Self {
        Self { status, step: step.into(), message: message.into(), remedy: None }
    }

    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    pub fn answer(&self) -> Response<Body> {
        let mut answer = json(self.status, &serde_json::json!({ "error": self }));
        if self.status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

/// An answer, or what is wrong with the request.
pub type Answer = Result<Response<Body>, Problem>;

pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut value = serde_json::to_value(value).expect("strings, numbers and maps with string keys always serialize");
    mask_strings(&mut value);
    text(status, "application/json", value.to_string() + "\n")
}

pub fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Whatever an error or a plugin's text may hold: no secret of this process leaves it. Keys and numbers are ours.
fn mask_strings(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let std::borrow::Cow::Owned(masked) = mask(text) {
                *text = masked;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_strings),
        Value::Object(entries) => entries.values_mut().for_each(mask_strings),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_wherever_a_text_has_it_and_nowhere_else() {
        crate::config::keep_secret("answer-canary");
        crate::config::keep_secret("12345678");
        let mut value = serde_json::json!({ "a": ["x answer-canary y"], "n": 12_345_678 });
        mask_strings(&mut value);
        assert_eq!(value, serde_json::json!({ "a": ["x <secret> y"], "n": 12_345_678 }));
    }
}
