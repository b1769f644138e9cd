// Package krl reads OpenSSH's key revocation lists, as ssh-keygen -k makes them, and says whether a key or a certificate is on one
// (PROTOCOL.krl in OpenSSH's sources). It decides as OpenSSH's ssh_krl_check_key does.
//
// It is stricter than the format asks: a section that it does not know, a flag, a reserved field that is filled, or a byte too many
// is an error, so that nothing is ever taken for "not revoked" because it was not understood. Signed lists are refused: a list
// comes inside a signed policy bundle, and OpenSSH never finished its own way.
package krl
