// Package boot is the controller's half of a server's boot: it serves releases to stubs, admits servers with their one-time
// tickets, renews their certificates, takes reports of boots that stopped, and holds one stream to each living server.
//
// Two ports, both on the controller's address:
//
//   - boot_port, HTTP: releases/VERSION/FILE, read only, the files of a release and nothing else. What is read
//     there is believed by hash and signature, so it needs no TLS.
//   - join_port, TLS 1.3: the same releases once more, for tickets that name it as an HTTPS mirror; challenge, join, renew and report are
//     HTTP; the stream is chosen by ALPN and needs a certificate of the
//     fleet's CA. docs/formats/join.md fixes the messages.
//
// Invariants: a ticket's hash is marked used in the store before anything is signed; the second use of a ticket revokes the
// life that the first use began, cuts its stream and stops its renewals; a stream belongs to one life (name, epoch, TLS key)
// and ends with its certificate, its revocation or the next life. Connections are bounded in all and per address, every read
// and write has a deadline and a size.
//
// It holds no key but its own TLS key, in memory: the signer signs. It decides nothing about rotation: it writes what servers
// say into the store and forwards the orders that it finds there.
//
// Read: boot.go, releases.go, certificate.go, admission.go, stream.go, watch.go, limit.go.
package boot
