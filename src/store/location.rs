//! Reads what a store's URL means.
//!
//! Enters: `store.url`
//! Leaves: a [`Location`], or what is wrong with the text
//! Never:  looks whether it is there
//! Time:   none
//! Spec:   none

use std::path::PathBuf;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// The memory of this process: gone with it.
    Memory,
    /// A bucket of a service, and the folder in it; empty for the whole bucket.
    Bucket {
        /// What the service speaks.
        service: Service,
        /// The bucket's name; Azure calls it a container.
        bucket: String,
        /// Without slashes at its ends.
        prefix: String,
    },
}

/// What a service of objects speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Amazon's S3 and everything compatible with it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Service {
    /// The variables that its credentials come from, for messages.
    pub(crate) const fn credentials(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            Self::Gcs => "GOOGLE_APPLICATION_CREDENTIALS",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        }
    }

    /// The settings of `table` that say where it is, for messages.
    pub(crate) fn settings(self, table: &str) -> String {
        match self {
            Self::S3 => format!("{table}.endpoint, {table}.region"),
            Self::Gcs | Self::Azure => format!("{table}.endpoint"),
        }
    }
}

/// What a URL may look like, for messages.
const FORMS: &str = "use a folder, file:///folder, s3://bucket/prefix, gs://bucket/prefix, \
                     az://container/prefix or memory://";

impl std::str::FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            if text.trim().is_empty() {
                return Err("is empty; use a folder, as in \"./data\"".to_owned());
            }
            return Ok(Self::Folder(PathBuf::from(text)));
        };
        let service = match scheme {
            "file" if rest.starts_with('/') => return Ok(Self::Folder(PathBuf::from(rest))),
            "file" => return Err("needs three slashes: file:///folder".to_owned()),
            "memory" => return Ok(Self::Memory),
            "s3" => Service::S3,
            "gs" => Service::Gcs,
            "az" => Service::Azure,
            _ => return Err(format!("is of no known kind; {FORMS}")),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(format!(
                "names no bucket; use {scheme}://BUCKET or {scheme}://BUCKET/PREFIX"
            ));
        }
        if rest.contains(['?', '#', '@']) {
            // Credentials in a URL end up in logs and process lists.
            return Err(
                "has more than a bucket and a prefix; endpoint and region have keys of their own, \
                 credentials come from the environment or a profile"
                    .to_owned(),
            );
        }
        Ok(Self::Bucket {
            service,
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(service: Service, bucket: &str, prefix: &str) -> Location {
        Location::Bucket {
            service,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    #[test]
    fn url_says_what_and_where() {
        for (url, expected) in [
            ("./data", Location::Folder("./data".into())),
            ("file:///srv/live", Location::Folder("/srv/live".into())),
            ("memory://", Location::Memory),
            ("s3://shows", bucket(Service::S3, "shows", "")),
            ("s3://shows/a/b/", bucket(Service::S3, "shows", "a/b")),
            ("gs://shows/x", bucket(Service::Gcs, "shows", "x")),
            ("az://shows", bucket(Service::Azure, "shows", "")),
        ] {
            assert_eq!(url.parse(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn mistake_is_told_with_what_to_write_instead() {
        for (url, complaint) in [
            ("", "a folder"),
            ("ftp://host", "s3://bucket/prefix"),
            ("s3://", "s3://BUCKET"),
            ("s3:///prefix", "s3://BUCKET"),
            ("file://srv", "three slashes"),
            ("s3://key:secret@bucket", "credentials"),
            ("s3://bucket?region=x", "region"),
        ] {
            let told = url.parse::<Location>().expect_err(url);
            assert!(told.contains(complaint), "{url}: {told}");
        }
    }
}
