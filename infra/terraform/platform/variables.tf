variable "kuberay_version" {
  description = "Version of KubeRay's operator and its chart."
  type        = string
  default     = "1.7.0"

  validation {
    condition     = can(regex("^1\\.([7-9]|[1-9][0-9]+)\\.[0-9]+$", var.kuberay_version))
    error_message = "1.7.0 or a newer 1.x is needed: Heliostat's manifests are written for it."
  }
}

variable "prometheus_stack_version" {
  description = "Version of the chart kube-prometheus-stack."
  type        = string
  default     = "75.15.1"

  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+$", var.prometheus_stack_version))
    error_message = "An exact version, MAJOR.MINOR.PATCH, is needed."
  }
}

variable "device_plugin_version" {
  description = "Version of the chart of NVIDIA's device plugin; null where the cloud installs one."
  type        = string
  default     = null

  validation {
    condition     = var.device_plugin_version == null || can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+$", var.device_plugin_version))
    error_message = "An exact version, MAJOR.MINOR.PATCH, is needed, or null."
  }
}
