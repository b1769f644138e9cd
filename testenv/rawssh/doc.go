// Package rawssh is a minimal SSH-2 client of raw packets, for tests that must send what a well-behaved client never sends: a
// password that the server did not offer, an unknown message, a channel before authentication. It speaks curve25519-sha256 and
// aes256-gcm@openssh.com (RFC 4253, RFC 5647, RFC 8731), checks the host key's signature over the exchange hash but not whose
// key it is, never rekeys, and is no client to log in with.
//
// Files in order: kex.go (versions and key exchange), packet.go (the binary packet protocol), auth.go (requests and replies).
package rawssh
