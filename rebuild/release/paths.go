package release

// Where things lie inside a release's files. The image is laid out by these, and the programs in it find their way by them.
const (
	// In stub.cpio.
	StubModulesPath = "/modules" // a kernel module's path a line, in load order
	StubEpochPath   = "/epoch"   // Unix time that the clock has to be later than

	// In root.erofs.
	InitPath    = "/sbin/mayfly-init"
	TunnelPath  = "/usr/bin/tunnel"
	BastionPath = "/usr/bin/bastion"
	ModulesPath = "/lib/mayfly/modules" // a kernel module's path a line, in load order

	// On the running root, in RAM: here the stub leaves what it believed.
	RunDir = "/run/mayfly"
)
