package bastion

import (
	"mayfly/policies"
	"mayfly/policies/plugin"
	"mayfly/policies/witness"
)

// Reasons that the bastion adds to those of package policies. docs/formats/audit.md explains each.
const (
	// before admission, counted
	startupsFull       policies.Reason = "startups_full"
	sourceStartupsFull policies.Reason = "source_startups_full"
	sourcePenalised    policies.Reason = "source_penalised"
	droppedByFilter    policies.Reason = "dropped_by_filter"

	proxyHeaderMissing   policies.Reason = "proxy_header_missing"
	proxyHeaderMalformed policies.Reason = "proxy_header_malformed"

	// during the handshake
	evictedReason      policies.Reason = "evicted"
	handshakeTimeout   policies.Reason = "handshake_timeout"
	noCommonAlgorithm  policies.Reason = "no_common_algorithm"
	protocolError      policies.Reason = "protocol_error"
	leftEarly          policies.Reason = "left_early"
	noKey              policies.Reason = "no_key"
	methodPassword     policies.Reason = "method_password"
	methodRefused      policies.Reason = "method_refused"
	keyMalformed       policies.Reason = "key_malformed"
	keyNoTouch         policies.Reason = "key_no_touch"
	badSignature       policies.Reason = "bad_signature"
	tooManyTries       policies.Reason = "too_many_tries"
	certificateExpired policies.Reason = "host_certificate_expired"

	// after proof of possession
	sessionsFull     policies.Reason = "sessions_full"
	engineerFull     policies.Reason = "engineer_sessions_full"
	robotsFull       policies.Reason = "robots_full"
	robotFull        policies.Reason = "robot_sessions_full"
	auditUnavailable policies.Reason = "audit_unavailable"

	// of a session that ended with the bastion
	drainLimit policies.Reason = "drain_limit"
	stopAtOnce policies.Reason = "stop_at_once"

	// of a policy that nobody confirms any more
	witnessMissing policies.Reason = witness.Missing
	policyFrozen   policies.Reason = witness.Frozen
	policyForked   policies.Reason = witness.Forked

	// of a policy that those who have a say now did not sign
	policyDistrusted policies.Reason = "policy_distrusted"

	// of a site's own decider
	pluginDenied policies.Reason = plugin.Denied
	pluginFailed policies.Reason = plugin.Failed
	pluginLate   policies.Reason = plugin.Late

	// of channels and requests
	channelRefused    policies.Reason = "channel_refused"
	requestRefused    policies.Reason = "request_refused"
	payloadMalformed  policies.Reason = "payload_malformed"
	channelsFull      policies.Reason = "channels_full"
	addressRefused    policies.Reason = "target_address_refused"
	targetUnreachable policies.Reason = "target_unreachable"

	// of the session mode
	hostKeyRefused      policies.Reason = "host_key_refused"
	sessionLoginRefused policies.Reason = "session_login_refused"
	commandTooLong      policies.Reason = "command_too_long"
	recordingFailed     policies.Reason = "recording_failed"
	recordingFull       policies.Reason = "recording_full"
)

// How an accepted connection, or one of its targets, ended.
const (
	endClient   = "client_closed"
	endTarget   = "target_closed"
	endLost     = "connection_lost"
	endIdle     = "idle_timeout"
	endLimit    = "session_limit"
	endPolicy   = "policy_cut"
	endStopping = "bastion_stopping"
	endRefused  = "refused"
	endDied     = "bastion_died" // found at the next start

	endRecording = "recording_ended" // what cannot be recorded does not go on
)
