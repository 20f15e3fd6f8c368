//! Who may open what: roles, tokens, and the sessions that begin with a token.
//!
//! A token is never stored in a browser. The login form exchanges it for a signed session in a cookie; programs send it as
//! `Authorization: Bearer`. A session is signed with a key derived from its token, so a token that is removed from the secret
//! ends its sessions.

pub mod session;
pub mod tokens;

/// The roles. Each page and each section names the one that it requires.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Sees the state of the system and everything that those who decide see.
    Operator,
    /// Sees the configured totals and how old they are.
    Decision,
    /// Sees their own data only.
    User,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Operator, Self::Decision, Self::User];

    /// The name in the secret and in sessions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Decision => "decision",
            Self::User => "user",
        }
    }

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// Whether this role may open what requires another one.
    pub fn may_open(self, required: Self) -> bool {
        match self {
            Self::Operator => matches!(required, Self::Operator | Self::Decision),
            Self::Decision | Self::User => self == required,
        }
    }
}

/// Who looks at the board.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Viewer {
    /// Their role.
    pub role: Role,
    /// For the role `user`, whose data is shown.
    pub user: Option<String>,
}

/// Why a request is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denial {
    /// It has no credentials, or those of a session that is over.
    #[error("sign in to see this page")]
    NotSignedIn,
    /// Its credentials are wrong.
    #[error("the token is not valid")]
    WrongCredentials,
    /// Too many wrong credentials came from the same address.
    #[error("too many failed attempts; wait a minute")]
    Throttled,
    /// The tokens could not be read.
    #[error("signing in is not possible at the moment; try again soon")]
    Unavailable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_sees_neither_totals_nor_the_state_of_the_system() {
        let allowed = |role: Role| Role::ALL.map(|required| role.may_open(required));
        assert_eq!(allowed(Role::Operator), [true, true, false]);
        assert_eq!(allowed(Role::Decision), [false, true, false]);
        assert_eq!(allowed(Role::User), [false, false, true]);
    }
}
