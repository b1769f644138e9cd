// Package signer is the process that holds the fleet's online keys: the CA of TLS certificates, the CA of SSH host
// certificates, the key of tickets and the key of server lists. It answers on a unix socket that only its own user may open.
//
// It believes nothing that its callers claim. For each request it checks by itself:
//
//   - evidence: a ticket that it signed, or a certificate that it issued together with a proof of its key;
//   - the boot, where the policy asks for it: a quote of the TPM that the inventory names, over a challenge of this process (challenges.go, prove.go);
//   - name and address: against the inventory of the policy bundle, which it opens with the trust policy like everybody else;
//   - lifetime: at most an hour for a server or a bastion, and never past the end of a server's life;
//   - rate: a bound for each server and hour;
//   - people's leave: what somebody makes it do (a drained statement, a bastion's first certificate) takes a request that engineers signed, once.
//
// A ticket is admitted once. What a server's life is (epoch, tickets, keys, end) is written durably before a certificate leaves
// the process, one file a server in signer/lives, so that a restart forgets nothing. Every certificate is recorded in
// signer/certificates.jsonl before it is handed out; when that cannot be written, nothing is signed.
//
// Read: init.go (the keys are made), keys.go (and loaded), rules.go (the signed inventory), lives.go, rate.go, then what is
// signed: ticket.go, server.go, hosts.go (with hostca.go and hostcafile.go: which CA), names.go, list.go; orders.go (by whose leave); serve.go and client.go
// are the two ends of the socket.
//
// It does not decide when a server is rebuilt, and it has no power over machines.
package signer
