variable "name" {
  description = "Of the cluster, and the beginning of what belongs to it."
  type        = string
  default     = "heliostat"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "a-z, 0-9 and dashes are allowed, 3 to 20 of them, the first a letter, the last no dash."
  }
}

variable "namespace" {
  description = "Kubernetes namespace of Heliostat's manifests, whose accounts heliostat and heliostat-head open the bucket."
  type        = string
  default     = "models"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "A name that Kubernetes takes is needed: a-z, 0-9 and dashes, 63 at most."
  }
}

variable "admin_cidrs" {
  description = "Addresses from which the Kubernetes API is reached, such as [\"203.0.113.7/32\"]; never the whole world."
  type        = list(string)

  validation {
    condition     = length(var.admin_cidrs) > 0 && alltrue([for one in var.admin_cidrs : can(cidrnetmask(one)) && tonumber(split("/", one)[1]) >= 8])
    error_message = "At least one IPv4 block of /8 or smaller is needed: your own addresses."
  }
}

variable "gpu_pools" {
  description = "Pools of machines with GPUs, by name: kind, GPUs of one machine, least and most machines, spot price or not."
  type = map(object({
    machine = string
    gpus    = number
    min     = number
    max     = number
    spot    = bool
  }))
  default = {
    l4-spot = { machine = "g6.2xlarge", gpus = 1, min = 0, max = 4, spot = true }
    l4      = { machine = "g6.2xlarge", gpus = 1, min = 0, max = 2, spot = false }
  }

  validation {
    condition     = alltrue([for one in values(var.gpu_pools) : one.min >= 0 && one.min <= one.max && one.max > 0 && one.gpus > 0])
    error_message = "Each pool needs gpus > 0 and 0 <= min <= max, with max > 0."
  }

  validation {
    condition     = alltrue([for name in keys(var.gpu_pools) : can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", name))])
    error_message = "Names of pools have 2 to 20 of a-z, 0-9 and dashes, the first a letter, the last no dash."
  }
}

variable "region" {
  description = "AWS region, such as eu-central-1."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "A region such as eu-central-1 is needed."
  }
}

variable "zones" {
  description = "Availability zones of the region, two at least; GPUs are not in all of them."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(distinct(var.zones)) == length(var.zones)
    error_message = "Two zones at least are needed, each once: EKS asks for them."
  }
}

variable "bucket" {
  description = "Name of the bucket for data, checkpoints and models; unique in the world."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "3 to 63 of a-z, 0-9 and dashes are needed, first and last no dash."
  }
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes, 1.30 or newer."
  type        = string
  default     = "1.33"

  validation {
    condition     = can(regex("^1\\.(3[0-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "1.30 or a newer minor is needed."
  }
}

variable "network" {
  description = "IPv4 block of the cluster's network, a /16."
  type        = string
  default     = "10.60.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.network)) && endswith(var.network, "/16")
    error_message = "A /16 block is needed."
  }
}

variable "system_machine" {
  description = "Kind of the machines for heads, MLflow, the operator and Prometheus; they are always there."
  type        = string
  default     = "m7i.2xlarge"
}

variable "cluster_autoscaler_chart_version" {
  description = "Version of the chart cluster-autoscaler."
  type        = string
  default     = "9.46.6"

  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+$", var.cluster_autoscaler_chart_version))
    error_message = "An exact version, MAJOR.MINOR.PATCH, is needed."
  }
}
