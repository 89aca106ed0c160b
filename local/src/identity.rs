//! Who asks: each function has its own access key and session token, so that its role in the template holds here as well.
//!
//! A right that the template forgets is noticed on the first local run, not after the deployment. Signatures are not checked;
//! everything listens on this machine only.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::template::{Function, allowed};

/// The functions by their credentials. Requests with other credentials are the developer's own and may do everything.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    by_access_key: BTreeMap<String, Function>,
    by_session_token: BTreeMap<String, Function>,
}

/// What a function is given to identify itself.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub session_token: String,
}

impl Identities {
    pub fn add(&mut self, function: &Function) -> Credentials {
        let session_token = uuid::Uuid::new_v4().simple().to_string();
        let access_key_id = format!("ASIA{}", &session_token[..16].to_uppercase());
        self.by_access_key.insert(access_key_id.clone(), function.clone());
        self.by_session_token.insert(session_token.clone(), function.clone());
        Credentials { access_key_id, session_token }
    }

    pub fn of_token(&self, token: &str) -> Option<&Function> {
        self.by_session_token.get(token)
    }

    /// Whether the signer of the request may do this; if not, AWS's sentence about it.
    pub fn check(&self, headers: &HeaderMap, action: &str, resource: &str) -> Result<(), String> {
        let signer = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once("Credential="))
            .and_then(|(_, rest)| rest.split('/').next())
            .and_then(|key| self.by_access_key.get(key));
        match signer {
            Some(function) if !allowed(&function.statements, action, resource) => {
                tracing::warn!(function = function.name, action, resource, "the role in the template does not allow this");
                Err(format!(
                    "function {} is not authorized to perform: {action} on resource: {resource} (see its role in the template)",
                    function.name
                ))
            }
            Some(_) | None => Ok(()),
        }
    }
}
