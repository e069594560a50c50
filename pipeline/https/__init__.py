"""What the API and a second site share: connections, their limits, TLS, who is at the other end."""
