// Package softkey is a software authenticator: it holds an sk-ssh-ed25519@openssh.com key in a file and signs as a FIDO2 token
// would, so that a test fleet can be logged in to without hardware. It proves nothing about hardware and says so: key files,
// comments and the evidence it is enrolled with all carry the word "software", and a policy accepts it only as "test:ROOT" in
// a fleet with test = true. It can also sign without a touch, to see that refused.
//
// Files in order: key.go (the key and its file), sign.go (signatures, PROTOCOL.u2f), agent.go (the agent socket), verb.go (the
// command).
package softkey
