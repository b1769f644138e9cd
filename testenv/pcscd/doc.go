// Package pcscd runs Debian's PC/SC daemon with readers that hold virtual cards, so that real programs find a card where they look
// for one.
//
// vpcd, the driver of those readers, listens on every address, so the daemon runs in a network namespace: one of the lab's, or one of
// its own. It also has a mount namespace, in which /run/pcscd is a directory of the caller's and the directory of USB drivers is
// empty: the machine's own daemon, its socket and the keys that people have plugged in are neither touched nor seen.
//
//	card --TCP 127.0.0.1:35963+n--> vpcd in pcscd --DIR/run/pcscd.comm--> libpcsclite in yubico-piv-tool, OpenSC, bastion-agent …
//
// A client needs no namespace: PCSCLITE_CSOCK_NAME names the socket, and a socket with a path is reached from every network
// namespace. Command and Environ set it.
//
// What it needs: root, or CAP_SYS_ADMIN and CAP_NET_ADMIN; the packages of Needs. The daemon is ended with the process that started
// it, also when that is killed. It trusts who may write to its directory.
package pcscd
