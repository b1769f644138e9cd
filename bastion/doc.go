// Package bastion is the login path: the one SSH server through which engineers reach a fleet. A file is a step, in the order in which a connection
// meets them, once package listen has a socket by which the kernel drops strangers:
//
//	admit      the address list once more, and who is welcome
//	penalty    what failed logins cost their source
//	startups   places for those who have not logged in
//	balancer   for whom a listed balancer connects (package proxy reads its header)
//	handshake  pinned algorithms, public keys only, a deadline (over package wire)
//	attest     what the proven key, or the certificate it came in, is and which evidence it was enrolled with
//	authorize  the one place where somebody is let in
//	refusal    what the SSH library refuses by itself, as reason codes
//	sessions   who is in, bounded, decided again when the policy changes
//	jump       direct-tcpip to an inventory name, and nothing else
//	reach      which addresses are never a target
//	carry      the bytes between engineer and server
//	session    where the policy says so: the bastion itself logs in at the server
//	relay      what belongs to a terminal, recorded before it is shown (package recording)
//	record     what the audit log says
//
// What these are held together by, and what stands beside them:
//
//	server, visit, drain                        the accept loop, a connection's life, and how all end
//	config, check, places                       bastion.toml, and what would be served
//	policy, fresh, watch                        signed bundles: loaded, confirmed by witnesses, reloaded
//	statements, glass                           what is signed for hours: approvals, openings, drained servers
//	plugins, replug, hostlog                    a site's own deciders, about what begins and what is open
//	hostkey, renew                              the host certificate; renew runs in a process of its own
//	auditlog, replica, died                     the log, its copy elsewhere, and who was in when the bastion died
//	counted, strangers, reasons                 refusals as counts, strangers' share of the log, codes
//	control, status, doctor, doctormachine, nft what the administrator may ask
//	metrics, gauges, metricsserver, logform     numbers and lines
//	notify, alerts, repeated, follow            what people are told at once (packages alert and origin, process bastion-alerts)
//	sandbox, tuning, unstick                    what the process can do once it serves, its runtime, its library
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
