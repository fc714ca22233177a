// Package hosts points containerd at larder's mirror and takes the pointer away again.
//
// containerd looks for a registry host's settings in <certs.d>/<host>_<port>_, <certs.d>/<host> and
// <certs.d>/_default; the first folder that exists wins whole and the others are not read. So larder writes a
// hosts.toml for the registries it knows and one for _default, which catches all others. Each names the mirror
// first; when the mirror does not answer, containerd goes on to the registry itself.
//
// The package promises:
//
//   - Nothing is lost. A hosts.toml that larder did not write is kept beside the new one as
//     hosts.toml.before-larder, byte for byte and with its mode and owner, and Undo puts it back. A kept file is
//     never overwritten.
//   - A file of larder's own that somebody changed by hand is recognised by its checksum and left alone,
//     unless force is asked for.
//   - A nil error means that every file is as it was asked to be. Where one file cannot be brought there
//     without losing something, all others are, and the error names that one and wraps
//     errdefs.ErrFailedPrecondition.
//   - A crash at any point leaves each hosts.toml either whole and old or whole and new, and the next run
//     finishes the work. A folder that larder makes appears together with its hosts.toml, since an empty one
//     would hide _default.
//   - Symbolic links are not followed: larder writes only into real folders below certs.d.
//   - Two runs at once do not mix: the second one gets errdefs.ErrUnavailable.
//
// Files have mode 0600, because they may hold the node secret and containerd runs as root. Folders have mode 0755,
// because a tool that runs as another user (ctr, nerdctl) stops with an error at a folder it may not look into.
package hosts
