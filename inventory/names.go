package inventory

// Roles of servers.
const (
	RoleVPN        = "vpn"        // carries users' traffic; mayfly rebuilds it
	RoleBastion    = "bastion"    // engineers jump through it; mayfly rebuilds it, and it carries nobody's traffic
	RoleController = "controller" // a controller runs on it; mayfly rebuilds it, from another controller
	RoleHost       = "host"       // somebody else's to install, Ansible's for example: engineers reach it through the bastion, and that is all
)

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
