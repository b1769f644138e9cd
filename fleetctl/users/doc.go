// Package users keeps the controller's processes apart: which user each runs as, what of the state directory belongs to whom, and who is at the other
// end of a unix socket. DIR/users.toml, which root alone writes, names them; without it all are one user, which holds the keys of all.
//
// It trusts the kernel (owners, modes, SO_PEERCRED) and root, and nothing that a process says of itself. What is not in its tables is nobody's.
//
// Read table.go, layout.go, start.go, peer_linux.go.
package users
