//! What an accepted token or certificate says of its client.

/// The claims of an accepted token or certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The identity, if the token or certificate has one.
    pub identity: Option<String>,
    /// The roles.
    pub roles: Vec<String>,
    /// When the token expires, leeway included, in seconds since 1970; `None` is never.
    pub expires_s: Option<u64>,
    /// The guard's attributes that the token has, as names and values.
    pub attributes: Vec<(String, String)>,
}

impl Claims {
    /// Whether the claims have all of `roles`.
    pub fn have(&self, roles: &[String]) -> bool {
        roles.iter().all(|role| self.roles.contains(role))
    }
}
