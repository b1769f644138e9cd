// Package bastion is the login path: the one SSH server through which engineers reach a fleet. One file is one step, in the
// order in which a connection meets them:
//
//	filter     what the kernel drops: a classic BPF program on the listening socket
//	listen     the socket that carries the filter
//	activate   or the socket that the service manager has kept
//	admit      the address list once more, and who is welcome
//	penalty    what failed logins cost their source
//	startups   places for those who have not logged in
//	proxy      the header by which a listed balancer says for whom it connects
//	handshake  pinned algorithms, public keys only, a deadline
//	attest     what the proven key is and which evidence it was enrolled with
//	authorize  the one place where somebody is let in
//	refusal    what the SSH library refuses by itself, as reason codes
//	sessions   who is in, bounded, decided again when the policy changes
//	jump       direct-tcpip to an inventory name, and nothing else
//	reach      which addresses are never a target
//	carry      the bytes between engineer and server
//	session    where the policy says so: the bastion itself logs in at the server
//	relay      what belongs to a terminal, recorded before it is shown
//	record     what the audit log says
//	sandbox    what the process can still do once it serves
//
// beside server.go (the accept loop), visit.go (a connection's life), drain.go (how it ends), counted.go (what is refused before admission, as counts), strangers.go (their share of
// the log), control.go and status.go (what its administrator may ask), nft.go (the list for the host's firewall),
// plugins.go and replug.go (a site's own deciders, about what begins and what is open), reasons.go (codes of refusals and ends), policy.go (signed policy
// bundles, loaded and reloaded), hostkey.go, config.go and check.go (what would be served), doctor.go and doctormachine.go (what is wrong), metrics.go,
// gauges.go and metricsserver.go (numbers), notify.go, alerts.go, repeated.go and follow.go (what people are told at once, by the process
// bastion-alerts). renew.go keeps the host certificate young, in a process of its own.
//
// Invariants. Every decision is made by package policies, after proof of possession. Nothing that a client merely claims
// has an effect. An admitted connection ends in exactly one closing audit record; if the log cannot be written, nobody new
// gets in. Every table, queue and time is bounded; what strangers have written down is bounded twice, and strangers.go says why. A target's
// address comes from the signed inventory, never from the client.
//
// What it does not do: it runs no command and resolves no server's name. Without the session mode, which is off by default, it opens no
// session of its own, holds no key that opens a server, and does not look into the inner SSH connection.
//
// It trusts: the trust policy file, its host key, the kernel's clock, and golang.org/x/crypto/ssh for the protocol.
//
// References: RFC 4252, RFC 4253, RFC 4254 section 7.2 (direct-tcpip), PROTOCOL.u2f (security keys), docs/formats/audit.md.
package bastion
