package agent

import "time"

// Specification constants: draft-miller-ssh-agent, section 5, and OpenSSH's PROTOCOL.agent.
const (
	msgFailure           = 5
	msgSuccess           = 6
	msgRequestIdentities = 11
	msgIdentitiesAnswer  = 12
	msgSignRequest       = 13
	msgSignResponse      = 14
	msgAddIdentity       = 17
	msgRemoveIdentity    = 18
	msgRemoveAll         = 19
	msgAddSmartcard      = 20
	msgRemoveSmartcard   = 21
	msgLock              = 22
	msgUnlock            = 23
	msgAddConstrained    = 25
	msgAddCardConstraint = 26
	msgExtension         = 27

	extensionBind = "session-bind@openssh.com"
)

// Specification constants: RFC 4252, section 7; OpenSSH's PROTOCOL, section 3.1; PROTOCOL.sshsig.
const (
	msgUserauthRequest = 50
	serviceConnection  = "ssh-connection"
	methodPublicKey    = "publickey"
	methodHostBound    = "publickey-hostbound-v00@openssh.com"
	sshsigMagic        = "SSHSIG"
)

// extensionWhy is our own: it asks why this connection's last request was refused. docs/formats/agent.md.
const extensionWhy = "why@mayfly"

// extensionChain is our own, from agent to agent: through which agents, by identifier, a connection comes, so that no two chain each other without end.
const extensionChain = "chain@mayfly"

// agentID is an agent's identifier there, and maxChainLength how many agents a connection may come through.
const (
	agentID        = 16 // bytes
	maxChainLength = 8
)

// Implementation constants: bounds of what clients can make us hold.
const (
	maxMessage     = 256 << 10 // OpenSSH's own bound
	maxConnections = 64
	maxQueued      = 2   // messages of one client that wait behind the one that is worked on
	maxBinds       = 16  // of one connection, as OpenSSH has it
	maxSessionID   = 64  // bytes: an exchange hash is 64 at most
	minSessionID   = 20  // SHA-1's
	maxUser        = 256 // bytes of a user's name
	maxNamespace   = 256 // bytes of an SSHSIG namespace
	maxCards       = 16
	maxKeys        = 32  // of one card
	maxChainedKeys = 128 // of one chained agent
	maxWaiting     = 8   // requests that wait for one card
	maxKnownHosts  = 4 << 20
	maxShown       = 60 // characters of one name in a prompt, as it is shown
)

// Implementation constants: times.
const (
	messageTime  = 30 * time.Second // from a message's first byte to its last
	writeTime    = 10 * time.Second
	dialTime     = 2 * time.Second  // to a chained agent
	chainWait    = 8 * time.Second  // for its keys: longer than it waits for its own cards
	touchWindow  = 15 * time.Second // for which a card waits by itself, also when nobody wants its signature any more
	busyTime     = touchWindow + 2*time.Second
	busyFirst    = 50 * time.Millisecond // between tries to open a busy card; doubles
	busyLast     = time.Second
	listWait     = 5 * time.Second // for a card that is in use, when keys are listed
	rememberFor  = 5 * time.Second // keys of a card that has not been pulled: another program may make one on it
	touchGrace   = 250 * time.Millisecond
	refusalsEach = 3 * time.Second // at most one refusal is shown to the person in this time

	// DefaultPINTime and DefaultTouchTime bound how long a person is waited for.
	DefaultPINTime   = 2 * time.Minute
	DefaultTouchTime = 30 * time.Second
)

// maxPINPrompts is how often one signature asks for the PIN; a card blocks after three wrong ones or so.
const maxPINPrompts = 3
