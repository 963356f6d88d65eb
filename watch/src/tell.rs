//! Who hears of changes.

use tokio::sync::mpsc;

/// Who hears of changes. `T` says of what: it comes with every name.
#[derive(Clone, Debug)]
pub enum Tell<T = ()> {
    /// Nobody.
    Nobody,
    /// The name of each object that changed, also of one that has gone or does not decode.
    Names {
        /// What the names are of.
        of: T,
        /// The watch waits while there is no room.
        to: mpsc::Sender<(T, String)>,
    },
    /// That something changed; one mark is enough for any number of changes.
    Something(mpsc::Sender<()>),
}

impl<T: Copy> Tell<T> {
    /// False when nobody listens any more.
    pub(crate) async fn of(&self, names: Vec<String>) -> bool {
        match self {
            Self::Nobody => true,
            Self::Names { of, to } => {
                for name in names {
                    if to.send((*of, name)).await.is_err() {
                        return false;
                    }
                }
                true
            }
            // Full means that a mark is there already.
            Self::Something(to) => {
                names.is_empty() || !matches!(to.try_send(()), Err(mpsc::error::TrySendError::Closed(())))
            }
        }
    }
}
