package inventory

// RoleVPN is the role of a server that carries users' traffic.
const RoleVPN = "vpn"

// DriverQEMU is the power driver of QEMU machines.
const DriverQEMU = "qemu"

// Names of the controller's services in certificates, so no server or bastion may have them.
const (
	NameController = "controller"
	NameCheckin    = "checkin"
)

// Ports of every server. Inside the tunnel the last two are open on the server's tunnel address.
const (
	PortSSH      = 22    // TCP, from bastions only
	PortTunnel   = 51820 // UDP: WireGuard
	PortRegister = 7443  // TCP: registration of VPN sessions (TLS 1.3)
	PortDNS      = 53    // UDP and TCP: the resolver
	PortNotice   = 7444  // TCP: notices of drains
)
