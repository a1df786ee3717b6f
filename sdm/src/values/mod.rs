//! Values that users write on the command line: sizes, durations, names, addresses, request ids, resources.
//! Each file reads one of them and says, when it cannot, what was expected. Nothing here asks a
//! cluster.

mod cluster_id;
mod duration;
mod endpoint;
mod reference;
mod request_id;
mod resource;
mod size;

pub use cluster_id::parse_cluster_id;
pub use duration::milliseconds;
pub use duration::parse_duration;
pub use endpoint::parse_address;
pub use endpoint::parse_addresses;
pub use reference::parse_absolute_path;
pub use reference::parse_name;
pub use reference::parse_reference;
pub use request_id::draw_request_id;
pub use request_id::parse_request_id;
pub use resource::split as split_resource;
pub use size::parse_size;
