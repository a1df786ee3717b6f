//! What a data folder that cannot be used means to a program: no permission, or a wrong state of this
//! host; never a defect of ours.

use sdm_proto::refusal::Class;
use std::error::Error;
use std::io;

/// The class of an error about a data folder, by its innermost cause.
#[must_use]
pub fn folder_class(error: &(dyn Error + 'static)) -> Class {
    if is_denied(error) { Class::Denied } else { Class::Precondition }
}

/// Whether the host refused for want of permission.
#[must_use]
pub fn is_denied(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::PermissionDenied)) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the folder: {source}")]
    struct Wrapped {
        source: io::Error,
    }

    #[test]
    fn permission_is_told_from_everything_else_at_any_depth() {
        let class = |kind: io::ErrorKind| folder_class(&Wrapped { source: kind.into() });
        assert_eq!(class(io::ErrorKind::PermissionDenied), Class::Denied);
        assert_eq!(class(io::ErrorKind::NotADirectory), Class::Precondition);
        assert_eq!(class(io::ErrorKind::ReadOnlyFilesystem), Class::Precondition);
    }
}
