//! Reads the profile files that Amazon's own tools keep.
//!
//! Enters: the texts of `credentials` and `config`
//! Leaves: what one profile says
//! Never:  files
//! Time:   none
//! Spec:   none

/// What a profile says.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<String>,
    pub(crate) session_token: Option<String>,
    pub(crate) region: Option<String>,
}

/// The profile `name`. The credentials file goes before the other.
pub(crate) fn read(name: &str, credentials: &str, config: &str) -> Profile {
    let mut profile = Profile::default();
    // The credentials file names a section after its profile; the other writes "profile" in front, except
    // for the default.
    take(credentials, &[name], &mut profile);
    let prefixed = format!("profile {name}");
    let plain: &[&str] = if name == "default" {
        &[name, &prefixed]
    } else {
        &[&prefixed]
    };
    take(config, plain, &mut profile);
    profile
}

/// Fills what is still empty in `profile` from the sections called `names`.
fn take(text: &str, names: &[&str], profile: &mut Profile) {
    let mut is_ours = false;
    for line in text.lines() {
        // A value that is a table of its own is indented.
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.split_once(']')) {
            is_ours = names.contains(&section.0.trim());
            continue;
        }
        if !is_ours || is_nested || line.starts_with(['#', ';']) {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let field = match key.trim() {
            "aws_access_key_id" => &mut profile.access_key_id,
            "aws_secret_access_key" => &mut profile.secret_access_key,
            "aws_session_token" => &mut profile.session_token,
            "region" => &mut profile.region,
            _ => continue,
        };
        field.get_or_insert_with(|| value.trim().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "# keys\n[default]\naws_access_key_id = A\naws_secret_access_key=S=/+\n\n\
                               [show]\naws_access_key_id = B\naws_secret_access_key = T\n\
                               aws_session_token = U\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\ns3 =\n  region = wrong\n\n\
                          [profile show]\nregion=us-east-1\naws_access_key_id = other\n";

    #[test]
    fn profile_is_read_from_both_files() {
        let default = read("default", CREDENTIALS, CONFIG);
        assert_eq!(default.access_key_id.as_deref(), Some("A"));
        assert_eq!(default.secret_access_key.as_deref(), Some("S=/+"));
        assert_eq!(default.region.as_deref(), Some("eu-west-1"));
        let show = read("show", CREDENTIALS, CONFIG);
        assert_eq!(show.access_key_id.as_deref(), Some("B"));
        assert_eq!(show.session_token.as_deref(), Some("U"));
        assert_eq!(show.region.as_deref(), Some("us-east-1"));
        assert!(read("none", CREDENTIALS, CONFIG) == Profile::default());
    }
}
