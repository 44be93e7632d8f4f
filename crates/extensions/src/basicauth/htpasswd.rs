//! Users and their passwords, in the format of Apache's `htpasswd`.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

/// How many right answers to expensive questions are remembered.
const REMEMBERED: usize = 1024;

enum Stored {
    Plain(String),
    /// `{SHA}`: the digest.
    Sha(Vec<u8>),
    /// `$2a$`, `$2b$`, `$2y$`.
    Bcrypt(String),
}

/// A list of users.
pub(super) struct Htpasswd {
    users: HashMap<String, Stored>,
    /// bcrypt is slow on purpose, and a client sends its password with every request: what was
    /// right once is remembered, as randomly keyed hashes.
    right: Mutex<HashMap<u64, u64>>,
    hashers: (RandomState, RandomState),
}

impl Htpasswd {
    /// Reads `user:password` lines; of two lines for a user the later one counts.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let (user, stored) =
                line.split_once(':').ok_or_else(|| format!("htpasswd line {number} is not user:password"))?;
            let stored = Stored::parse(stored).map_err(|error| format!("htpasswd line {number}: {error}"))?;
            users.insert(user.to_owned(), stored);
        }
        if users.is_empty() {
            return Err("htpasswd holds no user: write lines of user:password".to_owned());
        }
        Ok(Self { users, right: Mutex::default(), hashers: Default::default() })
    }

    pub(super) fn admits(&self, user: &str, password: &str) -> bool {
        let Some(stored) = self.users.get(user) else { return false };
        let Stored::Bcrypt(hash) = stored else { return stored.matches(password) };
        let (key, proof) = self.fingerprint(user, password);
        if self.right.lock().get(&key) == Some(&proof) {
            return true;
        }
        let is_right = bcrypt::verify(password, hash).unwrap_or(false);
        if is_right {
            let mut right = self.right.lock();
            if right.len() >= REMEMBERED {
                right.clear();
            }
            right.insert(key, proof);
        }
        is_right
    }

    /// Must bcrypt be asked?
    pub(super) fn is_slow(&self, user: &str, password: &str) -> bool {
        let (key, proof) = self.fingerprint(user, password);
        matches!(self.users.get(user), Some(Stored::Bcrypt(_))) && self.right.lock().get(&key) != Some(&proof)
    }

    fn fingerprint(&self, user: &str, password: &str) -> (u64, u64) {
        (self.hashers.0.hash_one((user, password)), self.hashers.1.hash_one((password, user)))
    }
}

impl Stored {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(encoded) = text.strip_prefix("{SHA}") {
            let digest =
                BASE64_STANDARD.decode(encoded).map_err(|error| format!("invalid {{SHA}} password: {error}"))?;
            return Ok(Self::Sha(digest));
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            return match text.parse::<bcrypt::HashParts>() {
                Ok(_) => Ok(Self::Bcrypt(text.to_owned())),
                Err(error) => Err(format!("invalid bcrypt password: {error}")),
            };
        }
        if ["$apr1$", "$1$", "$5$", "$6$", "{SSHA}"].iter().any(|prefix| text.starts_with(prefix)) {
            return Err("unsupported kind of password; make one with bcrypt: htpasswd -nB user".to_owned());
        }
        Ok(Self::Plain(text.to_owned()))
    }

    fn matches(&self, password: &str) -> bool {
        match self {
            Self::Plain(stored) => stored.as_bytes().ct_eq(password.as_bytes()).into(),
            Self::Sha(digest) => Sha1::digest(password.as_bytes()).as_slice().ct_eq(digest).into(),
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        }
    }
}
