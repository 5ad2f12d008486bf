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
    a10spot = { machine = "Standard_NV36ads_A10_v5", gpus = 1, min = 0, max = 4, spot = true }
    a10     = { machine = "Standard_NV36ads_A10_v5", gpus = 1, min = 0, max = 2, spot = false }
  }

  validation {
    condition     = alltrue([for one in values(var.gpu_pools) : one.min >= 0 && one.min <= one.max && one.max > 0 && one.gpus > 0])
    error_message = "Each pool needs gpus > 0 and 0 <= min <= max, with max > 0."
  }

  validation {
    condition     = alltrue([for name in keys(var.gpu_pools) : can(regex("^[a-z][a-z0-9]{0,11}$", name))])
    error_message = "Names of pools have at most 12 of a-z and 0-9 on AKS, the first a letter."
  }
}

variable "subscription" {
  description = "ID of the subscription."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.subscription))
    error_message = "The ID of a subscription is needed, a UUID."
  }
}

variable "location" {
  description = "Location, such as westeurope."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+[a-z0-9]*$", var.location))
    error_message = "The short name of a location is needed, such as westeurope."
  }
}

variable "storage_account" {
  description = "Name of the storage account; unique in the world."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]{3,24}$", var.storage_account))
    error_message = "3 to 24 of a-z and 0-9 are needed."
  }
}

variable "registry" {
  description = "Name of the container registry; unique in the world."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]{5,50}$", var.registry))
    error_message = "5 to 50 of a-z and 0-9 are needed."
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
  default     = "10.70.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.network)) && endswith(var.network, "/16")
    error_message = "A /16 block is needed."
  }
}

variable "system_machine" {
  description = "Kind of the machines for heads, MLflow, the operator and Prometheus; they are always there."
  type        = string
  default     = "Standard_D8s_v5"
}

variable "admin_group" {
  description = "Object ID of the Entra group whose members administer the cluster."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.admin_group))
    error_message = "The object ID of a group is needed, a UUID."
  }
}
