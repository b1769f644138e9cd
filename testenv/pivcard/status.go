package pivcard

// Status is a status word, the last two bytes of every answer.
type Status uint16

// Specification constants (ISO/IEC 7816-4, part 5.6; SP 800-73-4 part 2; Yubico's documentation).
const (
	statusOK              Status = 0x9000
	statusMore            Status = 0x6100 // the low byte: how many bytes more, 0 for 256 or more of them
	statusTries           Status = 0x63C0 // wrong PIN or PUK; the low four bits: tries left
	statusMemory          Status = 0x6581 // the state could not be written
	statusLength          Status = 0x6700
	statusSecureMessaging Status = 0x6882
	statusLastOfChain     Status = 0x6883
	statusSecurity        Status = 0x6982 // PIN, management key or touch missing
	statusBlocked         Status = 0x6983
	statusConditions      Status = 0x6985
	statusData            Status = 0x6A80 // also: no such key, no such algorithm
	statusNotFound        Status = 0x6A82
	statusNoSpace         Status = 0x6A84
	statusParameters      Status = 0x6A86
	statusReference       Status = 0x6A88
	statusSlot            Status = 0x6B00 // wrong P1 or P2: no such slot
	statusInstruction     Status = 0x6D00
	statusClass           Status = 0x6E00
	statusFault           Status = 0x6F00
	maxTriesShown                = 15 // what the low four bits of statusTries hold
	longestShortAnswer           = 256
	longestExtendedAnswer        = 65536
)

// tries is what a wrong PIN is answered with.
func tries(left int) Status { return statusTries | Status(min(left, maxTriesShown)) }
